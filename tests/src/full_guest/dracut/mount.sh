#!/bin/sh
# A writable layer over the root image, and in it what the test brings along.
modprobe -a virtio_blk squashfs overlay ext4
mkdir -p /run/lab/image /run/lab/layer
mount -t squashfs -o ro /dev/vda /run/lab/image
is_first_boot=yes
if [ -b /dev/vdb ]; then
    mount -t ext4 /dev/vdb /run/lab/layer
    [ -d /run/lab/layer/upper ] && is_first_boot=no
else
    mount -t tmpfs -o size=60% tmpfs /run/lab/layer
fi
mkdir -p /run/lab/layer/upper /run/lab/layer/work
mount -t overlay -o lowerdir=/run/lab/image,upperdir=/run/lab/layer/upper,workdir=/run/lab/layer/work overlay "$NEWROOT"
if [ $is_first_boot = yes ]; then
    cp -a /payload/. "$NEWROOT/"
fi
