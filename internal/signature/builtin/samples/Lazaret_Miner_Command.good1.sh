#!/bin/sh
# Blocks traffic of miners: alerts on the scheme stratum+tcp:// and on names such as xmrig.
suricata --user suricata -c /etc/suricata/suricata.yaml
grep -c "stratum+tcp://pool.example.invalid:3333" /var/log/proxy.log
