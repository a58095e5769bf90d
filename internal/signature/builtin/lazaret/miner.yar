// Crypto-miners: configurations and start scripts, whatever the binary is called.
// Patterns are written so that this file does not match them.

rule Lazaret_Miner_Config {
    meta:
        description = "Configuration of the XMRig crypto-miner with a real wallet"
        severity = "high"
        technique = "T1496"
        author = "Lazaret"
    strings:
        $pools = /"pools"\s{0,8}:\s{0,8}\[/
        $url = /"url"\s{0,8}:\s{0,8}"[^"\n]{4,253}:[0-9]{2,5}"/
        $o1 = "\x22donate-level\x22"
        $o2 = "\x22randomx\x22"
        $o3 = "\x22huge-pages\x22"
        $o4 = "\x22rig-id\x22"
        $o5 = "\x22nicehash\x22"
        $o6 = "\x22donate-over-proxy\x22"
        $o7 = "\x22algo\x22"
        $o8 = "\x22coin\x22"
        $placeholder = "YOUR_WALLET"
    condition:
        (uint8(0) == 0x7B or uint8(1) == 0x7B or uint8(2) == 0x7B or uint8(3) == 0x7B) and
        filesize < 64KB and $pools and $url and 4 of ($o*) and not $placeholder
}

rule Lazaret_Miner_Command {
    meta:
        description = "Script or unit starts a crypto-miner for a pool"
        severity = "high"
        technique = "T1496"
        author = "Lazaret"
    strings:
        $url = /stratum\d?\+?(tcp|ssl|tls)?:\/\/[A-Za-z0-9.\-]{4,253}:[0-9]{2,5}\b/
        $option1 = /\s(-u|--user|-O|--userpass)[ =]["']?[A-Za-z0-9.+_\-]{20,128}/
        $option2 = /\s--(donate-level|cpu-priority|max-cpu-usage|randomx-[a-z0-9\-]{1,32}|rig-id|coin)[ =]/
        $option3 = /\s(-a|--algo)[ =](rx\/|cn\/|randomx|cryptonight|ethash|kawpow|yescrypt|argon2)/
        $name = /\b(xmrig|minerd|cpuminer|xmr-stak|nanominer|nbminer|t-rex|lolMiner|phoenixminer|ccminer)\b/ nocase
    condition:
        filesize < 256KB and uint32(0) != 0x464C457F and uint16(0) != 0x5A4D and
        $url and (2 of ($option*) or ($name and any of ($option*)))
}
