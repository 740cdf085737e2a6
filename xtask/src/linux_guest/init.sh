#!/bin/busybox sh
# The first process of the Linux guest. The kernel passes on words of its command line as variables:
#
#   touch_mib=N            writes to N MiB and frees them
#   phases=MIB:S,MIB:S...  holds so many MiB for so many seconds, in turns without end, and verifies
#                          them all the time

# MiB of a chunk, the unit in which memory is held.
CHUNK=8
# Chunks that are written or verified at a time.
STEP=2

busybox() { /bin/busybox "$@"; }

# Writes to $1 MiB and frees them.
touch_memory() {
    busybox mount -t tmpfs -o size="$1m" memory /memory
    busybox dd if=/dev/zero of=/memory/zeros bs=1M count="$1" 2>/dev/null
    busybox umount /memory
}

# Goes on towards holding $1 chunks, by at most STEP more, as far as there is memory.
resize() {
    while [ "$chunks" -gt "$1" ]; do
        busybox rm "/memory/chunk.$chunks"
        chunks=$((chunks - 1))
    done
    more=0
    while [ "$chunks" -lt "$1" ] && [ "$more" -lt "$STEP" ]; do
        next=$((chunks + 1))
        # Each is like no other, so that exchanged chunks are found.
        if ! { busybox cp /memory/seed "/memory/chunk.$next" && echo "$next" >>"/memory/chunk.$next"; }; then
            busybox rm -f "/memory/chunk.$next"
            return
        fi
        eval "sum_$next=$(busybox crc32 <"/memory/chunk.$next")"
        chunks=$next
        more=$((more + 1))
    done
}

# Compares the next STEP chunks, in turn, with what was written.
verify() {
    more=0
    while [ "$chunks" -gt 0 ] && [ "$more" -lt "$STEP" ]; do
        chunk=$((chunk % chunks + 1))
        eval "written=\"\$sum_$chunk\""
        if [ "$(busybox crc32 <"/memory/chunk.$chunk")" = "$written" ]; then
            verified=$((verified + CHUNK))
        else
            errors=$((errors + 1))
        fi
        more=$((more + 1))
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
            busybox sleep 0.1
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
    chunks=0 chunk=0 verified=0 errors=0
    busybox mount -t tmpfs -o size=100% memory /memory
    busybox dd if=/dev/urandom of=/memory/seed bs=1M count="$CHUNK" 2>/dev/null
    while true; do walk "$phases"; done
fi
while true; do busybox sleep 1000; done
