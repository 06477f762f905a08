#!/bin/busybox sh
# The full guest's first process: lays a writable layer over the root image, puts in what the test brings
# along, and starts systemd.
busybox=/bin/busybox
$busybox mount -t devtmpfs devtmpfs /dev
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sysfs /sys
$busybox modprobe -a virtio_pci virtio_blk squashfs overlay
$busybox mkdir -p /image /layer /root-file-system
$busybox mount -t squashfs -o ro /dev/vda /image
is_first_boot=yes
if [ -b /dev/vdb ]; then
    # A disk of its own keeps the layer over a reboot.
    # Where it is a module, ext4 would ask for it through a modprobe that is not here.
    $busybox modprobe crc32c_generic 2>/dev/null
    $busybox modprobe ext4
    $busybox mount -t ext4 /dev/vdb /layer
    [ -d /layer/upper ] && is_first_boot=no
else
    $busybox mount -t tmpfs -o size=60% tmpfs /layer
fi
$busybox mkdir -p /layer/upper /layer/work
$busybox mount -t overlay -o lowerdir=/image,upperdir=/layer/upper,workdir=/layer/work overlay /root-file-system
if [ $is_first_boot = yes ]; then
    $busybox cp -a /payload/. /root-file-system/
    # A system that has been booted before: systemd brings nothing in /etc up to date.
    [ -e /payload/etc/.updated ] && $busybox touch /root-file-system/etc/.updated
fi
if [ -x /bin/ipconfig ]; then
    # As Debian's initramfs does where the kernel is told `ip=dhcp`.
    $busybox modprobe virtio_net
    $busybox mount -t tmpfs -o mode=755 tmpfs /run
    /bin/ipconfig -t 60 -c dhcp eth0
    $busybox mount --move /run /root-file-system/run
fi
for folder in dev proc sys; do
    $busybox mount --move /$folder /root-file-system/$folder
done
exec $busybox switch_root /root-file-system /usr/lib/systemd/systemd
