#!/bin/sh
# Installs a tool: fetches, verifies, runs.
curl -fsSL https://downloads.example.invalid/tool -o /tmp/tool
echo "$SUM  /tmp/tool" | sha256sum -c -
chmod +x /tmp/tool
/tmp/tool install && rm -f /tmp/tool
tail -n 5 ~/.bash_history
