// Persistence: ways to stay on a host.
// Patterns are written so that this file does not match them.

rule Lazaret_Persistence_Preload {
    meta:
        description = "Script puts a library before all programs"
        severity = "medium"
        technique = "T1574.006"
        author = "Lazaret"
    strings:
        $write = /\b(echo|printf)\s[^\n]{1,200}\.so[^\n]{0,40}>>?\s{0,4}\/etc\/ld\.so\.preload\b/
        $tee = /\.so["']?\s{0,4}\|\s{0,4}(sudo )?tee\s{1,4}(-a\s{1,4})?\/etc\/ld\.so\.preload\b/
    condition:
        filesize < 256KB and any of them
}

rule Lazaret_Persistence_SSH_Key {
    meta:
        description = "Script adds an SSH key and makes it hard to remove"
        severity = "high"
        technique = "T1098.004"
        author = "Lazaret"
    strings:
        $key = /\b(ssh-(rsa|ed25519|dss)|ecdsa-sha2-nistp256)\s{1,4}AAAA[A-Za-z0-9+\/=]{40}[^\n]{0,1200}>>?\s{0,4}[^\s]{0,64}\.ssh\/authorized_keys/
        $lock = /\bchattr\s{1,4}\+[aiu]{1,3}\s[^\n]{0,64}authorized_keys/
    condition:
        filesize < 256KB and all of them
}
