#!/bin/sh
# Starts and stops a private, throw-away Slurm cluster on this one Linux machine, for integration tests: munge, a controller and
# a few nodes of one CPU each. Needs root, as slurmd does. Nothing outside DIR changes, and no system service is started.
#
#     scripts/slurm-cluster.sh install              slurm-wlm and munge with apt-get, where they are missing; 3: cannot
#     scripts/slurm-cluster.sh start DIR NODES      nodes n1, n2, ...; returns when all are idle; then `. DIR/env.sh` and use
#                                                   sbatch, squeue, sinfo and scontrol
#     scripts/slurm-cluster.sh kill-node DIR NODE   SIGKILL for its slurmd and all that runs there, as if it lost power
#     scripts/slurm-cluster.sh start-node DIR NODE  brings it back; returns when it can take jobs again
#     scripts/slurm-cluster.sh hurry DIR            makes all pending jobs eligible now, requeued ones too
#     scripts/slurm-cluster.sh stop DIR             ends everything it started; may be called twice
#
# Two clusters in two folders can run side by side. DIR should be short: Unix sockets below it may have 107 characters.
set -eu
unset CDPATH
LC_ALL=C
export LC_ALL
PATH=$PATH:/usr/sbin:/sbin # not everybody's PATH has the daemons

usage='usage: scripts/slurm-cluster.sh install | start DIR NODES | kill-node DIR NODE | start-node DIR NODE | hurry DIR | stop DIR'

fail() {
    printf 'error: %s\n' "$1" >&2
    exit "${2:-1}"
}

# wait_for SECONDS COMMAND...: whether the command comes true in that time
wait_for() {
    end=$(($(date +%s) + $1))
    shift
    until "$@"; do
        [ "$(date +%s)" -lt "$end" ] || return 1
        sleep 0.2
    done
}

installed() { command -v slurmctld && command -v slurmd && command -v sbatch && command -v munged; } >/dev/null

# --- install --------------------------------------------------------------------------------------------------------

install_packages() {
    if installed; then return; fi
    command -v apt-get >/dev/null || fail 'Slurm is missing, and there is no apt-get to install it' 3
    [ "$(id -u)" -eq 0 ] || fail 'Slurm is missing, and only root can install it' 3
    log=$(mktemp)
    # The packages' scripts ask this file whether they may start a service; without it they would.
    guard=/usr/sbin/policy-rc.d
    ours=
    if [ ! -e "$guard" ]; then
        ours=$guard
        printf '#!/bin/sh\nexit 101\n' >"$guard"
        chmod 755 "$guard"
    fi
    trap 'rm -f "$log" $ours' EXIT
    trap 'exit 130' INT TERM HUP
    export DEBIAN_FRONTEND=noninteractive
    apt-get update >"$log" 2>&1 || true # the lists at hand may do
    apt-get install -y --no-install-recommends slurm-wlm munge >>"$log" 2>&1 && installed ||
        fail "slurm-wlm and munge cannot be installed: $(grep '^E:' "$log" | head -n 1)" 3
}

# --- processes ------------------------------------------------------------------------------------------------------

# Keeps those process ids on standard input whose program is one of ours: an editor may hold our files open, too.
only_daemons() {
    while read -r pid; do
        case $(cat "/proc/$pid/comm" 2>/dev/null) in
            slurmctld* | slurmscriptd* | slurmd* | slurmstepd* | munged*) echo "$pid" ;;
        esac
    done
}

# The slurmd of a node and its step managers. These are no children of slurmd, but all write to its log.
node_daemons() {
    find /proc/[0-9]*/fd -lname "$dir/$1/slurmd.log" 2>/dev/null | cut -d / -f 3 | sort -u | only_daemons
}

# All daemons of the cluster. Works from their arguments and environment, so also when DIR is gone.
daemons() {
    {
        grep -lszxF -e "$dir/slurm.conf" -e "--socket=$dir/munge/socket" /proc/[0-9]*/cmdline || true
        grep -lszxF -e "SLURM_CONF=$dir/slurm.conf" /proc/[0-9]*/environ || true
    } | cut -d / -f 3 | sort -u | only_daemons
}

# Processes of the jobs of a node, or of all, by what Slurm put in their environment: finds those, too, that have left their
# step manager's tree.
job_processes() {
    grep -lszxF -e "SLURM_CLUSTER_NAME=$cluster" /proc/[0-9]*/environ |
        while read -r file; do
            if grep -qszxF -e "SLURMD_NODENAME=${1:-}" "$file" || { [ -z "${1:-}" ] && grep -qsz '^SLURMD_NODENAME=' "$file"; }; then
                echo "$file"
            fi
        done | cut -d / -f 3
}

# descendants PID...: the children of these processes, their children and so on
descendants() {
    ps -e -o pid= -o ppid= | awk -v roots="$*" '
        { parent[$1] = $2 }
        END {
            n = split(roots, list, " ")
            for (i = 1; i <= n; i++) root[list[i]] = 1
            for (pid in parent) {
                steps = 0
                for (p = parent[pid]; p > 1 && steps++ < 1000; p = parent[p]) if (p in root) { print pid; break }
            }
        }'
}

send_kill() { [ $# -eq 0 ] || kill -KILL "$@" 2>/dev/null || true; }

# kill_all FINDER [NODE]: one round of killing what `FINDER [NODE]` and job_processes find; true if nothing was left to kill.
# The daemons first, so that none lives to report that its job ended: the controller is to see a lost node, not a failed job.
kill_all() {
    finder=$1
    shift
    heads=$("$finder" "$@")
    # shellcheck disable=SC2086
    below=$([ -z "$heads" ] || descendants $heads)
    # shellcheck disable=SC2086
    send_kill $heads $below
    # shellcheck disable=SC2046
    set -- $(job_processes "$@")
    send_kill "$@"
    [ -z "$heads" ] && [ $# -eq 0 ]
}

# --- the cluster ----------------------------------------------------------------------------------------------------

# Sets dir and cluster. Resolved without looking at the folder, as it may be gone when it comes to stopping.
open_dir() {
    [ -n "$1" ] || fail "$usage" 2
    dir=$(readlink -m -- "$1")
    # slurm.conf has no quoting, and "%" and "[" mean something there.
    case $dir in *[!A-Za-z0-9._/+-]*) fail "the folder's path may have only letters, digits and . _ / + -: $dir" 2 ;; esac
    # The longest socket is $dir/n100/spool/n100_123456.4294967291.
    [ ${#dir} -le 70 ] || fail "the folder's path is too long for the sockets in it, $dir: at most 70 characters" 2
    # Jobs see the cluster's name, by which they are found again, so each folder has its own.
    hash=$(printf '%s' "$dir" | cksum | cut -d ' ' -f 1)
    cluster=test$hash
}

# The first of $1 ports in a row on which nobody listens. The search starts where the folder's name says, so that two clusters
# that start at the same moment do not choose the same ones; it stays below the ports that outgoing connections get.
free_ports() {
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk '$4 == "0A" { sub(/.*:/, "", $2); print $2 }' | while read -r hex; do
        printf '%d\n' "0x$hex"
    done | awk -v count="$1" -v hash="$hash" '
        { taken[$1] = 1 }
        END {
            span = 32000 - 10000 - count
            for (tried = 0; tried < span; tried++) {
                first = 10000 + (hash + tried) % span
                for (i = 0; i < count && !((first + i) in taken); i++) ;
                if (i == count) { print first; exit }
            }
        }'
}

# configure NODES
configure() {
    host=$(hostname -s)
    port=$(free_ports $(($1 + 1)))
    [ -n "$port" ] || fail 'no free ports'
    memory=$(awk '/^MemTotal:/ { print int($2 / 1024 * 0.9) }' /proc/meminfo)
    cat <<CONF
ClusterName=$cluster
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job has to wait until its old credential cannot be valid any more, 120 s by default; scheduling options do not change
# that, this does. Not too short: a launch that a busy machine delays by more than this fails.
AuthInfo=socket=$dir/munge/socket,cred_expire=10
StateSaveLocation=$dir/ctld/state
SlurmctldPidFile=$dir/ctld/pid
SlurmctldLogFile=$dir/ctld/slurmctld.log
SlurmdSpoolDir=$dir/%n/spool
SlurmdPidFile=$dir/%n/pid
SlurmdLogFile=$dir/%n/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MailProg=/bin/true
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0
# What is said below counts, not what slurmd finds on the machine.
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
# A killed node is noticed after this time, and its jobs are requeued.
SlurmdTimeout=10
SlurmctldTimeout=10
InactiveLimit=0
KillWait=5
MinJobAge=300
MaxArraySize=1001
CONF
    i=1
    while [ "$i" -le "$1" ]; do
        echo "NodeName=n$i NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + i)) CPUs=1 RealMemory=$memory State=UNKNOWN"
        i=$((i + 1))
    done
    echo 'PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO'
}

# Daemons get no file of the caller's: one that reads our output through a pipe would wait for them.
start_slurmd() {
    mkdir -p "$dir/$1/spool"
    slurmd -N "$1" -f "$dir/slurm.conf" </dev/null >>"$dir/$1/out.log" 2>&1
}

states() { sinfo --noheader --Node --format='%N %T' 2>/dev/null; }
all_idle() { [ "$(states | grep -c ' idle$')" -eq "$1" ]; }
node_start() { scontrol show node "$1" 2>/dev/null | grep -o 'SlurmdStartTime=[^ ]*' || true; }
# node_is_back NODE OLD-START: up, and not merely because nobody has noticed that the old slurmd is gone
node_is_back() {
    states | grep -Eq "^$1 (idle|mixed|allocated)\$" && [ "$(node_start "$1")" != "$2" ]
}

give_up() {
    states >&2 || true
    tail -n 15 "$dir"/munge/*log "$dir"/ctld/*.log "$dir"/n*/*.log >&2 2>/dev/null || true
    wait_for 10 kill_all daemons || true
    fail "$1"
}

start() {
    case $1 in '' | *[!0-9]* | 0*) fail "not a number of nodes: $1" 2 ;; esac
    [ "$(id -u)" -eq 0 ] || fail 'only root can start a Slurm cluster' 3
    installed || fail 'Slurm is missing; see scripts/slurm-cluster.sh install' 3
    [ -z "$(daemons)" ] || fail "a cluster runs in $dir already"
    rm -rf "$dir/munge" "$dir/ctld" "$dir"/n[0-9]*
    mkdir -p "$dir/munge" "$dir/ctld/state"
    # munge wants that nobody else may write there, but all may reach its socket.
    chmod 755 "$dir" "$dir/munge"
    (umask 077 && head -c 1024 /dev/urandom >"$dir/munge/key")
    configure "$1" >"$dir/slurm.conf"
    echo "export SLURM_CONF=$dir/slurm.conf" >"$dir/env.sh"
    . "$dir/env.sh"

    # --force: the folder may lie below one that others may write to, such as /tmp.
    munged --force --key-file="$dir/munge/key" --socket="$dir/munge/socket" --pid-file="$dir/munge/pid" \
        --seed-file="$dir/munge/seed" --log-file="$dir/munge/log" </dev/null >"$dir/munge/out.log" 2>&1 ||
        give_up 'munged does not start'
    slurmctld -c -f "$dir/slurm.conf" </dev/null >"$dir/ctld/out.log" 2>&1 || give_up 'slurmctld does not start'
    i=1
    while [ "$i" -le "$1" ]; do
        start_slurmd "n$i" || give_up "slurmd of n$i does not start"
        i=$((i + 1))
    done
    wait_for 60 all_idle "$1" || give_up 'the nodes are not idle after 60 s'
}

# check_node NODE
check_node() {
    [ -f "$dir/env.sh" ] || fail "no cluster in $dir"
    . "$dir/env.sh"
    grep -q "^NodeName=$1 " "$dir/slurm.conf" || fail "no node $1 in $dir" 2
}

kill_node() {
    check_node "$1"
    [ -n "$(node_daemons "$1")" ] || fail "node $1 does not run"
    wait_for 10 kill_all node_daemons "$1" || fail "some processes of node $1 do not die"
}

start_node() {
    check_node "$1"
    before=
    if [ -z "$(node_daemons "$1" | grep .)" ]; then
        before=$(node_start "$1")
        start_slurmd "$1" || fail "slurmd of $1 does not start: $(tail -n 1 "$dir/$1/slurmd.log")"
    fi
    # Says no where the node needs no resuming, as ReturnToService brings back most.
    scontrol update "nodename=$1" state=resume >/dev/null 2>&1 || true
    wait_for 60 node_is_back "$1" "$before" || {
        tail -n 15 "$dir/ctld/slurmctld.log" "$dir/$1/slurmd.log" >&2
        fail "node $1 is not back after 60 s: $(states | grep "^$1 ")"
    }
}

# What a requeued job waits for is the start time that Slurm gave it, and that can be changed. Held jobs and those that depend on
# others stay as they are.
hurry() {
    [ -f "$dir/env.sh" ] || fail "no cluster in $dir"
    . "$dir/env.sh"
    # Of an array, tasks that do not wait refuse the change, which does not matter.
    for job in $(squeue --noheader --states=PENDING --format=%F | sort -u); do
        scontrol update "jobid=$job" starttime=now >/dev/null 2>&1 || true
    done
}

stop() {
    wait_for 20 kill_all daemons || fail "some processes of $dir do not die: $(daemons | tr '\n' ' ')"
    if [ -d "$dir/munge" ]; then rm -f "$dir"/munge/socket* "$dir"/munge/pid "$dir"/ctld/pid "$dir"/n[0-9]*/pid; fi
}

case ${1:-}/$# in
    install/1) install_packages ;;
    start/3) open_dir "$2" && start "$3" ;;
    kill-node/3) open_dir "$2" && kill_node "$3" ;;
    start-node/3) open_dir "$2" && start_node "$3" ;;
    hurry/2) open_dir "$2" && hurry ;;
    stop/2) open_dir "$2" && stop ;;
    *) fail "$usage" 2 ;;
esac
