#!/bin/sh
# A private Slurm cluster on this machine for tests: munge, a controller and a few nodes of one core, all in one folder.
#
#     scripts/slurm.sh install             installs slurm-wlm and munge from Debian's packages if they are missing; 3: cannot
#     scripts/slurm.sh start DIR NODES     waits until nodes n1, n2, … are idle; DIR/env.sh then directs Slurm's commands to it
#     scripts/slurm.sh kill-node DIR NODE  kills its slurmd and all its processes, as when a node loses power
#     scripts/slurm.sh start-node DIR NODE starts it again
#     scripts/slurm.sh hurry DIR           lets requeued jobs start now
#     scripts/slurm.sh stop DIR            stops everything it started
#
# Needs root, as slurmd does. Changes nothing outside DIR and starts no system service.
set -eu
unset CDPATH

fail() {
    printf 'error: %s\n' "$1" >&2
    exit "${2:-1}"
}

# The installed packages must not start services of their own.
install_packages() {
    if command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v munged >/dev/null; then return; fi
    command -v apt-get >/dev/null || fail 'Slurm is missing and there is no apt-get to install it' 3
    [ "$(id -u)" -eq 0 ] || fail 'Slurm is missing and only root can install it' 3
    guard=/usr/sbin/policy-rc.d
    made_guard=
    if [ ! -e "$guard" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$guard"
        chmod +x "$guard"
        made_guard=1
    fi
    status=0
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends slurm-wlm munge; } >/dev/null 2>&1 || status=3
    [ -z "$made_guard" ] || rm -f "$guard"
    [ "$status" -eq 0 ] || fail 'slurm-wlm and munge cannot be installed from the system packages' 3
}

configure() {
    dir=$1
    nodes=$2
    mkdir -p "$dir/state" "$dir/log" "$dir/run" "$dir/munge"
    # munge requires folders that only it can write to.
    chmod 700 "$dir/munge"
    chmod 755 "$dir" "$dir/run"
    dd if=/dev/urandom of="$dir/munge/key" bs=1024 count=1 2>/dev/null
    chmod 600 "$dir/munge/key"
    # Clusters in different folders use different ports.
    base=$((20000 + $(printf '%s' "$dir" | cksum | cut -d ' ' -f 1) % 200 * 100))
    host=$(hostname)
    {
        cat <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$base
AuthType=auth/munge
AuthInfo=socket=$dir/run/munge.socket,cred_expire=10
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool-%n
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
JobRequeue=1
SlurmdTimeout=8
SlurmctldTimeout=8
InactiveLimit=0
KillWait=5
MinJobAge=300
MessageTimeout=5
CONF
        i=1
        while [ "$i" -le "$nodes" ]; do
            printf 'NodeName=n%d NodeHostname=%s NodeAddr=127.0.0.1 Port=%d CPUs=1 State=UNKNOWN\n' "$i" "$host" $((base + i))
            i=$((i + 1))
        done
        printf 'PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO\n'
    } >"$dir/slurm.conf"
    printf 'export SLURM_CONF=%s/slurm.conf\n' "$dir" >"$dir/env.sh"
}

# until SECONDS COMMAND...
until_true() {
    tries=$(($1 * 5))
    shift
    while ! "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.2
    done
}

all_idle() { [ "$(sinfo --noheader --Node --format=%T | grep -c '^idle$')" -eq "$1" ]; }
is_up() { sinfo --noheader --Node --nodes="$1" --format=%T | grep -q '^idle\|^mixed\|^allocated'; }

is_registered() { grep -q 'slurmd started' "$1/log/slurmd-$2.log" && pgrep -F "$1/run/slurmd-$2.pid" slurmd; }

start_slurmd() {
    slurmd -N "$2" -f "$1/slurm.conf"
}

# A process and all its children, children first.
tree() {
    for pid in $(pgrep -P "$1"); do tree "$pid"; done
    echo "$1"
}

node_processes() {
    [ ! -f "$1/run/slurmd-$2.pid" ] || pgrep -F "$1/run/slurmd-$2.pid" slurmd || true
    # Step managers are not children of slurmd, but write to its log.
    for pid in $(pgrep slurmstepd || true); do
        if ls -l "/proc/$pid/fd" 2>/dev/null | grep -q "$1/log/slurmd-$2.log"; then tree "$pid"; fi
    done
}

kill_node() {
    pids=$(node_processes "$1" "$2")
    [ -n "$pids" ] || fail "no process of node $2 was found"
    # Stopped first, so that nothing writes or reports while the others are killed.
    # shellcheck disable=SC2086
    kill -STOP $pids 2>/dev/null || true
    # shellcheck disable=SC2086
    kill -9 $pids 2>/dev/null || true
}

start() {
    dir=$1
    configure "$dir" "$2"
    munged --force --key-file="$dir/munge/key" --socket="$dir/run/munge.socket" --pid-file="$dir/munge/pid" \
        --log-file="$dir/munge/log" --seed-file="$dir/munge/seed" || fail 'munged does not start'
    . "$dir/env.sh"
    slurmctld -f "$dir/slurm.conf" -c
    i=1
    while [ "$i" -le "$2" ]; do
        start_slurmd "$dir" "n$i"
        i=$((i + 1))
    done
    until_true 60 all_idle "$2" || {
        tail -n 20 "$dir"/log/*.log >&2
        stop "$dir"
        fail 'the nodes are not idle after a minute'
    }
}

stop() {
    dir=$1
    for conf in "$dir"/run/slurmd-*.pid; do
        [ -e "$conf" ] || continue
        node=${conf##*/slurmd-}
        # shellcheck disable=SC2046
        kill -9 $(node_processes "$dir" "${node%.pid}") 2>/dev/null || true
    done
    for pid in "$dir/run/slurmctld.pid" "$dir/munge/pid"; do
        if [ -f "$pid" ]; then kill "$(cat "$pid")" 2>/dev/null || true; fi
    done
    gone() {
        for pid in "$dir/run/slurmctld.pid" "$dir/munge/pid"; do
            if [ -f "$pid" ] && pgrep -F "$pid"; then return 1; fi
        done
    }
    until_true 10 gone || fail "some processes of $dir do not end"
}

[ $# -ge 1 ] || fail 'usage: scripts/slurm.sh install | start DIR NODES | kill-node DIR NODE | start-node DIR NODE | hurry DIR | stop DIR'
case $1 in
    install) install_packages ;;
    start) mkdir -p "$2" && start "$(cd "$2" && pwd)" "$3" ;;
    stop) if [ -d "$2" ]; then stop "$(cd "$2" && pwd)"; fi ;;
    kill-node) kill_node "$(cd "$2" && pwd)" "$3" ;;
    start-node)
        dir=$(cd "$2" && pwd)
        . "$dir/env.sh"
        start_slurmd "$dir" "$3"
        # A node that returns before it was missed would show its lost job as running for most of a minute. Only once it
        # has registered: before that, its next job would be mistaken for the lost one.
        until_true 30 is_registered "$dir" "$3" || fail "node $3 does not register"
        scontrol update "nodename=$3" state=down reason=killed
        # Refused if the node has already returned by itself.
        scontrol update "nodename=$3" state=resume 2>/dev/null || true
        until_true 60 is_up "$3" || fail "node $3 does not return"
        ;;
    hurry)
        . "$(cd "$2" && pwd)/env.sh"
        for job in $(squeue --noheader --states=PENDING --format=%F | sort -u); do
            scontrol update "jobid=$job" starttime=now 2>/dev/null || true
        done
        ;;
    *) fail "unknown command $1" ;;
esac
