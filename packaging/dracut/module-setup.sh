#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# An initramfs made by dracut has the NICs' roles, as they are configured when it is made: whatever asks for a network
# there configures no VF. After a change of the configuration it has to be made anew.

# called by dracut
check() {
    # Of another system's tree the program here knows nothing.
    [[ ! ${dracutsysrootdir-} ]] && require_binaries tandem
}

# called by dracut
depends() {
    return 0
}

# called by dracut
install() {
    local rules
    # A configuration that is wrong keeps no NIC from its manager, here as after the switch of root.
    rules=$(tandem udev --initramfs) || dwarn "tandem: VFs are configured in the initramfs, too"
    [[ $rules ]] || return 0
    inst_dir /etc/udev/rules.d
    printf '%s\n' "$rules" > "${initdir:?}/etc/udev/rules.d/10-tandem-initramfs.rules"
    # systemd-networkd before 255 does not know ID_NET_MANAGED_BY.
    inst_multiple -o "${systemdnetwork:?}/01-tandem-unmanaged.network"
}
