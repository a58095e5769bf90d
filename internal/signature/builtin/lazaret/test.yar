// Files that every scanner should report although they are harmless. The
// patterns are hexadecimal so that this file is not one of them.

rule Lazaret_Test_EICAR {
    meta:
        description = "EICAR anti-virus test file"
        severity = "high"
        author = "Lazaret"
        reference = "https://www.eicar.org"
    strings:
        $eicar = { 58 35 4F 21 50 25 40 41 50 5B 34 5C 50 5A 58 35 34 28 50 5E 29 37 43 43 29
                   37 7D 24 45 49 43 41 52 2D 53 54 41 4E 44 41 52 44 2D 41 4E 54 49 56 49 52
                   55 53 2D 54 45 53 54 2D 46 49 4C 45 21 24 48 2B 48 2A }
    condition:
        // The test file's definition allows white space after it, up to 128 bytes in all.
        $eicar at 0 and filesize <= 128 and (
            filesize == 68 or
            for all i in (68..filesize - 1) : (
                uint8(i) == 0x20 or uint8(i) == 0x09 or uint8(i) == 0x0A or uint8(i) == 0x0D or uint8(i) == 0x1A
            )
        )
}

rule Lazaret_Test_File {
    meta:
        description = "Lazaret test file"
        severity = "high"
        author = "Lazaret"
    strings:
        $line = { 4C 41 5A 41 52 45 54 2D 54 45 53 54 2D 46 49 4C 45 2D 37 63 39 65 36 36 37
                  39 2D 37 34 32 35 2D 34 30 64 65 2D 39 34 34 62 2D 65 30 37 66 63 31 66 39
                  30 61 65 37 }
    condition:
        $line at 0 and filesize <= 256
}

rule Lazaret_Test_AMTSO_PUA {
    meta:
        description = "Program that says it is AMTSO's feature check for potentially unwanted applications"
        severity = "low"
        author = "Lazaret"
        reference = "https://www.amtso.org/security-features-check/"
    strings:
        $amtso = "amtso" ascii wide nocase
        $pua = /potentially[ -]unwanted/ ascii wide nocase
        $test = /test file|feature[s]? (settings )?check/ ascii wide nocase
    condition:
        uint16(0) == 0x5A4D and filesize < 1MB and all of them
}
