#!/bb/busybox sh
# The first process of a booted test kernel. What stands between the two marks is the output of /script.
export PATH=/usr/sbin:/usr/bin:/bb HOME=/root TERM=dumb RUST_BACKTRACE=1
/bb/busybox --install -s /bb
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm /run/netns
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
chmod 1777 /tmp
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
ln -sf /proc/self/fd /dev/fd
ulimit -n 65536
ip link set lo up
while read -r module; do
    insmod "/modules/$module" || echo "module $module did not load"
done < /modules/order
echo "MESH-KERNEL-BEGIN $(uname -r)"
/script < /dev/null
echo "MESH-KERNEL-END $?"
poweroff -f
