# An OpenSSH server with users, syslog and /run of its own. Runs in private mount, process and network
# namespaces as their first process, so that everything in here ends with it.
#   $1 directory with sshd_config, passwd and shadow; also gets the logs
#   $2 `file` (rsyslogd writes auth.log) or `journal` (systemd-journald writes below journal/)
#   $3 for `journal`: slice that the unit `ssh.service` lies in
set -eu
PATH=$PATH:/usr/sbin:/sbin
room=$1 log=$2

# /dev is shared with the machine; /dev/log in it must be ours alone.
mkdir "$room/dev"
mount -t tmpfs tmpfs "$room/dev"
for node in null zero full random urandom tty; do
  : >"$room/dev/$node"
  mount --bind "/dev/$node" "$room/dev/$node"
done
mkdir "$room/dev/pts" "$room/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$room/dev/pts"
ln -s pts/ptmx "$room/dev/ptmx"
ln -s /proc/self/fd "$room/dev/fd"
mount --move "$room/dev" /dev
mount -t tmpfs tmpfs /run
mkdir /run/sshd
mount --bind "$room/passwd" /etc/passwd
mount --bind "$room/shadow" /etc/shadow

case $log in
file)
  rsyslogd -n -f "$room/rsyslog.conf" -i NONE &
  ;;
journal)
  mkdir -p /run/systemd/journal /run/log/journal "$room/journal"
  mount --bind "$room/journal" /run/log/journal
  ln -s /run/systemd/journal/dev-log /dev/log
  for journald in /lib/systemd/systemd-journald /usr/lib/systemd/systemd-journald; do
    if [ -x "$journald" ]; then break; fi
  done
  # It looks a sender's control group up when it comes to the message: let it come before the sender ends.
  if chrt --fifo 1 true 2>/dev/null; then chrt --fifo 1 "$journald" & else "$journald" & fi
  # journald learns the unit from the sender's control group.
  # Where it is there already, as under systemd, the kernel refuses to mount it over itself.
  if [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ]; then mount -t cgroup2 none /sys/fs/cgroup; fi
  mkdir -p "/sys/fs/cgroup/$3/ssh.service"
  ;;
esac
tries=0
until [ -S /dev/log ]; do
  tries=$((tries + 1))
  if [ $tries -gt 100 ]; then
    echo "no /dev/log after 5 s" >&2
    exit 1
  fi
  sleep 0.05
done

(
  # Not in the first process: what lies below that one's control group counts as no unit.
  if [ "$log" = journal ]; then echo 0 >"/sys/fs/cgroup/$3/ssh.service/cgroup.procs"; fi
  exec "$(command -v sshd)" -D -f "$room/sshd_config"
) &
wait $!
