#!/bin/busybox sh
# The first process of the Linux guest. The kernel passes on words of its command line as variables:
#
#   touch_mib=N            writes to N MiB and frees them
#   phases=MIB:S,MIB:S...  holds so many MiB for so many seconds, in turns without end, and verifies
#                          them all the time

# MiB of a chunk, the unit in which memory is held.
CHUNK=8

busybox() { /bin/busybox "$@"; }

# Writes to $1 MiB and frees them.
touch_memory() {
    busybox mount -t tmpfs -o size="$1m" memory /memory
    busybox dd if=/dev/zero of=/memory/zeros bs=1M count="$1" 2>/dev/null
    busybox umount /memory
}

# Prints a chunk that is like no other.
print_chunk() {
    echo "$1"
    busybox cat /memory/seed
}

# Holds $1 chunks, as far as there is memory.
resize() {
    while [ "$chunks" -gt "$1" ]; do
        busybox rm "/memory/chunk.$chunks"
        chunks=$((chunks - 1))
    done
    while [ "$chunks" -lt "$1" ]; do
        next=$((chunks + 1))
        sum=$(print_chunk "$next" | busybox tee "/memory/chunk.$next" 2>/dev/null | busybox md5sum)
        if [ "$(busybox stat -c %s "/memory/chunk.$next")" -le $((CHUNK << 20)) ]; then
            busybox rm "/memory/chunk.$next"
            return
        fi
        eval "sum_$next=\"$sum\""
        chunks=$next
    done
}

# Compares each chunk with what was written.
verify() {
    chunk=1
    while [ "$chunk" -le "$chunks" ]; do
        eval "written=\"\$sum_$chunk\""
        if [ "$(busybox md5sum <"/memory/chunk.$chunk")" = "$written" ]; then
            verified=$((verified + CHUNK))
        else
            errors=$((errors + 1))
        fi
        chunk=$((chunk + 1))
    done
}

# Walks through the phases $1 once.
walk() {
    for phase in $(echo "$1" | busybox tr , ' '); do
        end=$(($(busybox date +%s) + ${phase#*:}))
        while [ "$(busybox date +%s)" -lt "$end" ]; do
            resize $((${phase%:*} / CHUNK))
            verify
            echo "linux: holds $((chunks * CHUNK)) of ${phase%:*} MiB, $verified MiB verified, $errors errors"
            busybox sleep 0.2
        done
    done
}

busybox mount -t devtmpfs dev /dev
busybox mount -t proc proc /proc
for module in $(busybox cat /modules/order); do
    [ -f "/modules/$module.ko" ] && busybox insmod "/modules/$module.ko"
done
echo linux: up
[ -n "$touch_mib" ] && touch_memory "$touch_mib"
echo linux: ready
if [ -n "$phases" ]; then
    chunks=0 verified=0 errors=0
    busybox mount -t tmpfs -o size=100% memory /memory
    busybox dd if=/dev/urandom of=/memory/seed bs=1M count="$CHUNK" 2>/dev/null
    while true; do walk "$phases"; done
fi
while true; do busybox sleep 1000; done
