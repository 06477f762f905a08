# The first process of a host's namespaces: puts the host's own folders in place and keeps libvirtd running.
# $1: the host's folder; $2: its name.
set -e
folder=$1
mount --make-rprivate /
for pair in etc:/etc/libvirt lib:/var/lib/libvirt log:/var/log/libvirt cache:/var/cache/libvirt run:/run; do
    mkdir -p "${pair#*:}"
    mount --bind "$folder/${pair%%:*}" "${pair#*:}"
done
mkdir -p /run/libvirt /run/lock
hostname "$2"
# One that was killed is started again, as systemd does; one that gives up ends the host.
while :; do
    set +e
    libvirtd >>"$folder/libvirtd.log" 2>&1
    status=$?
    set -e
    [ "$status" -gt 128 ] || exit "$status"
    rm -f /run/libvirtd.pid
done
