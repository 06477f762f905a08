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
$busybox mount -t tmpfs -o size=60% tmpfs /layer
$busybox mkdir /layer/upper /layer/work
$busybox mount -t overlay -o lowerdir=/image,upperdir=/layer/upper,workdir=/layer/work overlay /root-file-system
$busybox cp -a /payload/. /root-file-system/
for folder in dev proc sys; do
    $busybox mount --move /$folder /root-file-system/$folder
done
exec $busybox switch_root /root-file-system /usr/lib/systemd/systemd
