#!/bin/sh
# The program that is killed: it says its name and pid as the first thing it does, and then only waits.
# pulse.sh NAME FIFO
echo "$1 $$" > "$2"
exec sleep 86400
