#!/bin/sh
# Sends a backup through a pipe to another host.
mkfifo /tmp/backup; cat /tmp/backup | nc 192.0.2.1 4444 &
tar c /srv > /tmp/backup
# "nc -e /bin/sh" is what one must not do.
