package containerdtest

// guardScript is the process that outlives the caller just long enough to
// clean up. Arguments: directory, containerd namespace. Descriptor 3 is a pipe
// that ends with the caller.
//
// Containers are found by their cgroup, shims by containerd's mount namespace;
// both are private to this runtime, so nobody else's process can match.
const guardScript = `
dir=$1 ns=$2
mount -o loop "$dir/disk.img" "$dir/fs" || exit 1
mkdir -p "$dir/fs/root"
unshare --mount --propagation private /bin/sh -c '
  mount -t tmpfs -o mode=711 tmpfs /run/containerd || exit 1
  echo $$ >"$1/containerd.pid.new" && mv "$1/containerd.pid.new" "$1/containerd.pid"
  export TMPDIR="$1/tmp"
  exec containerd --config "$1/config.toml" 3<&-
' sh "$dir" &
child=$!
# unshare without --fork becomes the shell and then containerd: same pid.
read -r _ <&3
mnt=$(readlink "/proc/$child/ns/mnt")
stop_containers() {
  for p in /proc/[0-9]*; do
    if grep -q "/$ns/" "$p/cgroup" 2>/dev/null; then kill -9 "${p#/proc/}" 2>/dev/null; fi
  done
}
stop_containers
sleep 0.2
kill -TERM "$child" 2>/dev/null
for p in /proc/[0-9]*; do
  pid=${p#/proc/}
  if [ -n "$mnt" ] && [ "$pid" != "$child" ] && [ "$(readlink "$p/ns/mnt" 2>/dev/null)" = "$mnt" ]; then
    kill -9 "$pid" 2>/dev/null
  fi
done
i=0
while kill -0 "$child" 2>/dev/null && [ $i -lt 50 ]; do sleep 0.1; i=$((i+1)); done
kill -9 "$child" 2>/dev/null
wait "$child" 2>/dev/null
stop_containers
i=0
until umount "$dir/fs" 2>/dev/null; do
  i=$((i+1)); [ $i -lt 100 ] || { umount "$dir/fs"; umount -l "$dir/fs"; break; }
  sleep 0.1
done
find /sys/fs/cgroup -depth -type d -path "*/$ns*" -exec rmdir {} + 2>/dev/null
if [ -n "$(find /sys/fs/cgroup -type d -path "*/$ns*" 2>/dev/null)" ]; then
  sleep 0.5
  find /sys/fs/cgroup -depth -type d -path "*/$ns*" -exec rmdir {} + 2>/dev/null
fi
[ $i -lt 100 ]
`
