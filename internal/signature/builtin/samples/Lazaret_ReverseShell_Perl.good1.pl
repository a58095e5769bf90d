#!/usr/bin/perl
use Socket;
open(STDIN, "<", "/dev/null");
socket(my $s, PF_INET, SOCK_STREAM, getprotobyname("tcp"));
connect($s, sockaddr_in(80, inet_aton("192.0.2.1")));
system("/bin/sh", "-c", "date");
