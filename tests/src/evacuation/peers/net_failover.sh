#!/bin/sh
# Brings up the net_failover device that virtio_net made, with the guest's addresses.
for device in /sys/class/net/*; do
    [ -e "$device/master" ] && master=$(basename "$(readlink "$device/master")")
done
[ -n "$master" ] || exit 1
ip link set "$master" up
ip address add @ADDRESS4@ dev "$master"
ip -6 address add @ADDRESS6@ dev "$master" nodad
