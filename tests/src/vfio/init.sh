#!/bin/busybox sh
# A hypervisor's first process: lays a writable layer over the root image, puts in what the lab brings along, and goes
# on in it.
busybox=/bin/busybox
if [ "$1" != inside ]; then
    for kind in devtmpfs:dev proc:proc sysfs:sys; do
        $busybox mount -t "${kind%%:*}" "${kind%%:*}" "/${kind#*:}"
    done
    $busybox modprobe -a virtio_pci virtio_blk squashfs overlay
    $busybox mkdir -p /image /layer /root-file-system
    $busybox mount -t squashfs -o ro /dev/vda /image
    $busybox mount -t tmpfs -o size=60% tmpfs /layer
    $busybox mkdir -p /layer/upper /layer/work
    $busybox mount -t overlay -o lowerdir=/image,upperdir=/layer/upper,workdir=/layer/work overlay /root-file-system
    $busybox cp -a /payload/. /root-file-system/
    for folder in dev proc sys; do
        $busybox mount --move /$folder /root-file-system/$folder
    done
    exec $busybox switch_root /root-file-system /usr/sbin/lab-init inside
fi
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
for folder in /dev/shm /run /tmp; do
    mount -t tmpfs tmpfs $folder
done
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# What udev would make.
ln -sf /proc/self/fd /dev/fd
ln -sf fd/0 /dev/stdin
ln -sf fd/1 /dev/stdout
ln -sf fd/2 /dev/stderr
ip link set lo up
modprobe -a virtio_console virtio_net bridge tun vhost_net vfio_pci vfio_iommu_type1 igb
modprobe kvm_amd || modprobe kvm_intel
echo "lab: init done"
lab-agent guest
echo "lab-agent ended"
echo o >/proc/sysrq-trigger
