// Reverse shells: one-liners and small scripts that connect a shell to a remote
// host.
// Patterns are written so that this file does not match them.

rule Lazaret_ReverseShell_Bash {
    meta:
        description = "Shell gives control to a remote host through /dev/tcp"
        severity = "critical"
        technique = "T1059.004"
        author = "Lazaret"
    strings:
        $direct = /\b(ba)?sh\s{1,8}-i\s{0,8}(0|1|2)?(>&|&>|>)\s{0,8}\/dev\/(tcp|udp)\/[^\s\/"']{1,253}\/[0-9$]/
        $open = /\bexec\s{1,8}[0-9]{1,3}<>\s{0,4}\/dev\/(tcp|udp)\/[^\s\/"']{1,253}\/[0-9$]/
        $loop = /cat\s{0,4}<&\s{0,2}[0-9]{1,3}\s{0,4}\|\s{0,4}while\s{1,4}read/
        $shell = /\b(ba)?sh\s{0,4}(-i\s{0,4})?<&\s{0,2}[0-9]{1,3}\s{0,4}>&\s{0,2}[0-9]{1,3}/
    condition:
        filesize < 256KB and ($direct or ($open and ($loop or $shell)))
}

rule Lazaret_ReverseShell_Python {
    meta:
        description = "Python connects a shell to a remote host"
        severity = "critical"
        technique = "T1059.006"
        author = "Lazaret"
    strings:
        $dup = /\bos\.dup2\s{0,4}\(\s{0,4}\w{1,32}\.fileno\s{0,4}\(\s{0,4}\)\s{0,4},\s{0,4}[012]\s{0,4}\)/
        $connect = /\.connect\s{0,4}\(\s{0,4}\(\s{0,4}["'][^"'\n]{1,253}["']\s{0,4},\s{0,4}[0-9]{1,5}\s{0,4}\)\s{0,4}\)/
        $shell = /\b(pty\.spawn|subprocess\.(call|Popen|run)|os\.(system|execlp?e?|execvp?e?))\s{0,4}\(\s{0,4}\[?\s{0,4}["'](\/usr)?(\/bin\/)?(ba|da|z|k)?sh["']/
    condition:
        filesize < 256KB and all of them
}

rule Lazaret_ReverseShell_Perl {
    meta:
        description = "Perl connects a shell to a remote host"
        severity = "critical"
        technique = "T1059"
        author = "Lazaret"
    strings:
        $socket = /\buse\s{1,4}(Socket|IO::Socket)/
        $redirect = /open\s{0,4}\(\s{0,4}STDIN\s{0,4},\s{0,4}["']<?>?&\s{0,2}\w{1,32}["']\s{0,4}\)/
        $shell = /\b(exec|system)\s{0,4}\(?\s{0,4}\{?\s{0,4}["'](\/usr)?\/bin\/(ba|da|z|k)?sh(\s{1,4}-i)?["']/
    condition:
        filesize < 256KB and all of them
}

rule Lazaret_ReverseShell_Netcat {
    meta:
        description = "Netcat connects a shell to a remote host"
        severity = "high"
        technique = "T1059.004"
        author = "Lazaret"
    strings:
        $fifo = /\bmkfifo\s{1,4}\S{1,128}\s{0,4}[;&]{1,2}\s{0,4}(\/bin\/)?cat\s{1,4}\S{1,128}\s{0,4}\|\s{0,4}(\/bin\/)?(ba|da|z)?sh\s{1,4}-i\s{0,4}2>&1\s{0,4}\|\s{0,4}(nc|ncat|netcat|telnet|openssl|busybox nc)\b/
        $before = /\b(nc|ncat|netcat)\s{1,4}(-[a-df-z]{1,6}\s{1,4}){0,3}-[ec]\s{1,4}["']?(\/usr)?\/bin\/(ba|da|z)?sh["']?\s{1,4}([0-9]{1,3}\.){3}[0-9]{1,3}\s{1,4}[0-9]{1,5}\b/
        $after = /\b(nc|ncat|netcat)\s{1,4}(-[a-df-z]{1,6}\s{1,4}){0,3}([0-9]{1,3}\.){3}[0-9]{1,3}\s{1,4}[0-9]{1,5}\s{1,4}-[ec]\s{1,4}["']?(\/usr)?\/bin\/(ba|da|z)?sh\b/
    condition:
        filesize < 256KB and any of them
}

rule Lazaret_ReverseShell_PHP {
    meta:
        description = "PHP connects a shell to a remote host"
        severity = "critical"
        technique = "T1059"
        author = "Lazaret"
    strings:
        $tag = "<?"
        $connect = /\b(fsockopen|stream_socket_client)\s{0,4}\(/
        $shell = /["'`](uname -a; ?w; ?id; ?)?(\/usr)?(\/bin\/)?(ba|da)?sh -i/
        $run = /\b(proc_open|shell_exec|popen|exec|system)\s{0,4}\(/
        $pipe = /\b(descriptorspec|stream_select|<&[0-9]|>&[0-9])/
    condition:
        filesize < 256KB and all of them and $tag in (0..4096)
}
