#!/bin/sh
# Checks that nothing is preloaded.
if [ -s /etc/ld.so.preload ]; then echo "libraries are preloaded:"; cat /etc/ld.so.preload; fi
echo libfoo.so
