#!/bin/bash
# Reports known miners to the operators.
for name in xmrig kinsing kdevtmpfsi; do
    pgrep -a "$name" && echo "found $name"
done
curl -s https://monitoring.example.invalid/ok
chmod 600 /var/log/report
