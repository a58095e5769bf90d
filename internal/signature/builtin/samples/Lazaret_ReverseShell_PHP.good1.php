<?php
// Sends a mail by talking to the server.
$s = fsockopen("mail.example.invalid", 25);
fwrite($s, "HELO web\r\n");
$p = proc_open(["/bin/date"], [1 => ["pipe", "w"]], $pipes);
