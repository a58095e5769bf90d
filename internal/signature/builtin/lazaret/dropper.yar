// Droppers: scripts that fetch and start something and cover it up.
// Patterns are written so that this file does not match them.

rule Lazaret_Dropper_Wipe {
    meta:
        description = "Script downloads a program to a temporary directory, runs it and hides its traces"
        severity = "critical"
        technique = "T1105"
        author = "Lazaret"
    strings:
        $fetch = /\b(curl|wget|lwp-download|fetch)\s[^\n]{0,300}(\/tmp\/|\/var\/tmp\/|\/dev\/shm\/|\/var\/run\/)/
        $fetch_cd = /\bcd\s{1,4}(\/tmp|\/var\/tmp|\/dev\/shm|\/var\/run)\b[^\n]{0,200}[;&|\n][^\n]{0,100}\b(curl|wget|lwp-download|fetch)\s/
        $chmod = /\bchmod\s{1,4}(-R\s{1,4})?(\+x|[ugoa]{1,4}\+r?w?x|0?7[0-7]{2}|\+rwx)\s/
        $wipe1 = /\bhistory\s{1,4}-c(w)?\b/
        $wipe2 = /\bunset\s{1,4}HIST(FILE|SIZE)\b/
        $wipe3 = /\bHISTFILE=\/dev\/null\b/
        $wipe4 = /\b(rm\s{1,4}-[rf]{1,2}\s{1,4}|>\s{0,4}|ln -sf \/dev\/null )[^\s]{0,64}\.bash_history\b/
        $wipe5 = /\b(rm\s{1,4}-[rf]{1,2}\s{1,4}|cat \/dev\/null\s{0,4}>\s{0,4})\/var\/log\/(wtmp|lastlog|secure|auth\.log|messages|btmp|syslog)\b/
    condition:
        filesize < 128KB and ($fetch or $fetch_cd) and $chmod and any of ($wipe*)
        // Text: a compiled program that carries such a script in itself is something else.
        and for all i in (0..511) : (i >= filesize or uint8(i) != 0)
}

rule Lazaret_Dropper_Rivals {
    meta:
        description = "Script removes rival crypto-miners before it downloads its own"
        severity = "critical"
        technique = "T1496"
        author = "Lazaret"
    strings:
        $rival = /\b(pkill|killall|kill|grep|pgrep)\b[^\n]{0,60}\b(xmrig|kinsing|kdevtmpfsi|minerd|kworkerds|watchbog|ddgs|qW3xT|sysupdate|networkservice|sustes|xmr-stak|cryptonight|zzh|pnscan|masscan)\b/
        $fetch = /\b(curl|wget|lwp-download)\s[^\n]{0,200}(https?:\/\/|\$)/
        $start = /\b(nohup|chmod|setsid|crontab)\b/
    condition:
        filesize < 256KB and #rival >= 3 and $fetch and $start
        // Text: a compiled program that carries such a script in itself is something else.
        and for all i in (0..511) : (i >= filesize or uint8(i) != 0)
}

rule Lazaret_Dropper_Cron {
    meta:
        description = "Cron job runs whatever a web server answers, every few minutes"
        severity = "high"
        technique = "T1053.003"
        author = "Lazaret"
    strings:
        $line = /(\*|\*\/[0-9]{1,2})\s{1,4}\*\s{1,4}\*\s{1,4}\*\s{1,4}\*\s{1,4}[^\n]{0,120}\b(curl|wget)\s[^\n]{1,300}\|\s{0,4}(\/usr)?(\/bin\/)?(sudo )?(ba|da|z)?sh\b/
    condition:
        filesize < 256KB and $line
        // Text: a compiled program that carries such a script in itself is something else.
        and for all i in (0..511) : (i >= filesize or uint8(i) != 0)
}

rule Lazaret_Dropper_Encoded {
    meta:
        description = "Script decodes a long text and runs it in a shell"
        severity = "high"
        technique = "T1027"
        author = "Lazaret"
    strings:
        $shell = /\becho\s{1,4}(-n\s{1,4})?["']?[A-Za-z0-9+\/]{120,8000}={0,2}["']?\s{0,4}\|\s{0,4}base64\s{1,4}(-d|-D|--decode)\s{0,4}\|\s{0,4}(\/usr)?(\/bin\/)?(sudo )?(ba|da|z)?sh\b/
        $python = /\bexec\s{0,4}\(\s{0,4}(__import__\s{0,4}\(\s{0,4}["']base64["']\s{0,4}\)|base64|codecs)\s{0,4}\.\s{0,4}b64decode\s{0,4}\(\s{0,4}b?["'][A-Za-z0-9+\/=]{120}/
    condition:
        filesize < 1MB and any of them
        // Text: a compiled program that carries such a script in itself is something else.
        and for all i in (0..511) : (i >= filesize or uint8(i) != 0)
}
