#!/bin/bash
# Waits for a service to listen, then logs in interactively.
until (exec 3<>"/dev/tcp/$HOST/$PORT") 2>/dev/null; do sleep 1; done
while read -r line; do echo "$line"; done < /etc/services
bash -i
