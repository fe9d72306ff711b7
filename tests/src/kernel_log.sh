# A journald and a rsyslogd that read the kernel's log, each in its own way, into a directory of ours. Runs in
# private mount and process namespaces as their first process, so that everything in here ends with it.
#   $1 directory with rsyslog.conf; gets kern.log and journal/
set -eu
PATH=$PATH:/usr/sbin:/sbin
room=$1

# /dev is shared with the machine; /dev/log in it must be ours alone.
mkdir "$room/dev"
mount -t tmpfs tmpfs "$room/dev"
for node in null zero full random urandom kmsg; do
  : >"$room/dev/$node"
  mount --bind "/dev/$node" "$room/dev/$node"
done
ln -s /proc/self/fd "$room/dev/fd"
mount --move "$room/dev" /dev
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal /run/log/journal "$room/journal"
mount --bind "$room/journal" /run/log/journal
for journald in /lib/systemd/systemd-journald /usr/lib/systemd/systemd-journald; do
  if [ -x "$journald" ]; then break; fi
done
rsyslogd -n -f "$room/rsyslog.conf" -i NONE &
exec "$journald"
