#!/bin/sh
# An active-backup bond as an operator makes it by hand, and a loop that takes in a VF that comes.
# Arguments: the standby's MAC, then the VFs'.
bond=bond0
standby=$1
shift

device_of() {
    for device in /sys/class/net/*; do
        [ -e "$device/device" ] || continue
        [ -e "$device/master" ] && continue
        read -r address <"$device/address" || continue
        [ "$address" = "$1" ] && echo "${device##*/}"
    done
}

take_vf() {
    for mac in "$@"; do
        vf=$(device_of "$mac")
        [ -n "$vf" ] || continue
        ip link set "$vf" down
        ip link set "$vf" master "$bond" && ip link set "$bond" type bond primary "$vf"
    done
}

modprobe bonding
first=$(device_of "$standby")
ip link add "$bond" address "$standby" type bond mode active-backup miimon 100 primary_reselect always
ip link set "$first" down
ip link set "$first" master "$bond"
ip address add @ADDRESS4@ dev "$bond"
ip -6 address add @ADDRESS6@ dev "$bond" nodad
ip link set "$bond" up
take_vf "$@"
# `ip monitor` prints a line for each change of an interface; a VF that came is one of them.
ip monitor link | while read -r _; do
    take_vf "$@"
done
