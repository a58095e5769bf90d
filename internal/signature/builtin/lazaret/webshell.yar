// Web shells: pages that hand a web server to whoever asks.
// Patterns are written so that this file does not match them.

rule Lazaret_WebShell_PHP_Request {
    meta:
        description = "PHP runs what a web request contains"
        severity = "critical"
        technique = "T1505.003"
        author = "Lazaret"
    strings:
        $tag = "<?"
        $run = /\b(eval|assert|system|passthru|shell_exec|popen|proc_open|pcntl_exec|exec|create_function)\s{0,8}\(\s{0,8}@?((base64_decode|stripslashes|urldecode|rawurldecode|trim|gzinflate|str_rot13|strrev|hex2bin)\s{0,8}\(\s{0,8}@?){0,3}\$_(GET|POST|REQUEST|COOKIE|FILES)\b/ nocase
        $tick = /`\s{0,8}\$_(GET|POST|REQUEST|COOKIE)\s{0,8}\[[^\]`]{1,64}\]\s{0,8}`/
    condition:
        filesize < 1MB and $tag in (0..4096) and ($run or $tick)
}

rule Lazaret_WebShell_PHP_Call {
    meta:
        description = "PHP calls a function whose name comes from a web request"
        severity = "critical"
        technique = "T1505.003"
        author = "Lazaret"
    strings:
        $tag = "<?"
        $call = /\$_(GET|POST|REQUEST|COOKIE)\s{0,8}(\[|\{)[^\]}\n]{1,64}(\]|\})\s{0,8}\(\s{0,8}@?(base64_decode\s{0,8}\(\s{0,8})?\$_(GET|POST|REQUEST|COOKIE)\b/
    condition:
        filesize < 1MB and $tag in (0..4096) and $call
}

rule Lazaret_WebShell_PHP_Packed {
    meta:
        description = "PHP evaluates code that is packed in several layers"
        severity = "high"
        technique = "T1027"
        author = "Lazaret"
    strings:
        $tag = "<?"
        $eval = /\b(eval|assert)\s{0,8}\(\s{0,8}@?(["']\?>["']\s{0,8}\.\s{0,8})?(gzinflate|gzuncompress|gzdecode|str_rot13|strrev|convert_uudecode)\s{0,8}\(\s{0,8}(base64_decode|str_rot13|strrev|gzinflate|gzuncompress|convert_uudecode|hex2bin)\s{0,8}\(/ nocase
    condition:
        filesize < 2MB and $tag in (0..4096) and $eval
}

rule Lazaret_WebShell_JSP_Command {
    meta:
        description = "JSP page runs commands that a web request contains and shows the output"
        severity = "critical"
        technique = "T1505.003"
        author = "Lazaret"
    strings:
        $tag = "<%"
        $parameter = /request\s{0,8}\.\s{0,8}(getParameter|getHeader)\s{0,8}\(/
        $exec = /getRuntime\s{0,8}\(\s{0,8}\)\s{0,8}\.\s{0,8}exec\s{0,8}\(/
        $builder = /new\s{1,8}(java\.lang\.)?ProcessBuilder\s{0,8}\(/
        $output = /\.\s{0,8}getInputStream\s{0,8}\(/
    condition:
        filesize < 256KB and $tag in (0..4096) and $parameter and ($exec or $builder) and $output
}

rule Lazaret_WebShell_JSP_Loader {
    meta:
        description = "JSP page loads classes that a web request contains"
        severity = "critical"
        technique = "T1505.003"
        author = "Lazaret"
    strings:
        $tag = "<%"
        $loader = /extends\s{1,8}(java\.lang\.)?ClassLoader\b/
        $define = /\bdefineClass\s{0,8}\(/
        $request = /request\s{0,8}\.\s{0,8}(getReader|getParameter|getInputStream)\s{0,8}\(/
        $decode = /(BASE64Decoder|Base64|javax\.crypto)/
    condition:
        filesize < 256KB and all of them and $tag in (0..4096)
}

rule Lazaret_WebShell_Python_Request {
    meta:
        description = "Python web handler runs what a web request contains"
        severity = "critical"
        technique = "T1505.003"
        author = "Lazaret"
    strings:
        $run = /\b(os\s{0,4}\.\s{0,4}(system|popen)|subprocess\s{0,4}\.\s{0,4}(Popen|run|call|check_output|getoutput)|eval|exec)\s{0,4}\(\s{0,8}((flask\.)?request\s{0,4}\.\s{0,4}(args|form|values|cookies|data|GET|POST|headers|get_data)\b|form\.getvalue\s{0,4}\(|cgi\.FieldStorage\s{0,4}\()/
        $import = /\b(import|from)\s{1,4}(flask|cgi|django|bottle|os|subprocess)\b/
    condition:
        filesize < 256KB and all of them
}
