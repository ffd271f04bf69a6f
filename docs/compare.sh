#!/bin/sh
# Starts Postfix and Dovecot as Debian ships them (postfix, dovecot-imapd,
# dovecot-lmtpd), privately: own configuration, queue, mail and ports on loopback,
# all below one directory. Nothing outside it is touched, and a Postfix or Dovecot
# that runs already is left alone.
#
#   compare.sh start [DIR]            start; DIR is made below /var/tmp when not given
#   compare.sh show DIR               say again where they listen
#   compare.sh measure DIR POSTROAD   load them with the command POSTROAD, some minutes; MESSAGES (10000) and
#                                     IDLE (2000) are those of the IMAP rows
#   compare.sh stop DIR               stop them, by their process ids; DIR stays
#   compare.sh smtp [--binary OTHER]... POSTROAD
#                                     one table: the command POSTROAD, others like it (an older version) and Postfix
#                                     accept mail, at each of CONNECTIONS (1 10 50 200), SIZES (4k 64k) and TLS (none
#                                     starttls), for TIME (3s) each, one after the other; needs nothing started
#   compare.sh relay POSTROAD         one table: the command POSTROAD and Postfix send a held backlog on to the same sink,
#                                     for each of MESSAGES (3000 20000) of 4 KB and DESTINATIONS (1 1000), each with
#                                     a host of its own, 127.0.0.1 and so on; a drain may take DRAIN (20m)
#
# Ports: DISCARD_PORT (12525), MAIL_PORT (12526), IMAP_PORT (12143),
# IMAPS_PORT (12993), the last with a certificate of its own; of relay RELAY_PORT (12527) and SINK_PORT (12626). Neither server
# keeps a log of the mail that goes through, which is in their favour; LOG=yes
# makes them.
#
# Two servers for mail to *@example.test, any local part:
#
#   discard   Postfix, which queues safely (fsync) and then discards: for accepting
#   mail      Postfix, by LMTP to Dovecot, to Maildir (mail_fsync = always), IMAP
#
# Any user logs in with the password "bench". DIR has to be on the disk that is
# meant: a tmpfs makes fsync free.
set -eu

die() { echo "compare.sh: $*" >&2; exit 1; }

postfix_config() { # name port transport
	mkdir -p "$dir/$1/queue" "$dir/$1/data"
	chown postfix "$dir/$1/data"
	cat >"$dir/$1/main.cf" <<-END
		compatibility_level = 3.6
		myhostname = $1.example.test
		queue_directory = $dir/$1/queue
		data_directory = $dir/$1/data
		mynetworks = 127.0.0.0/8
		inet_interfaces = loopback-only
		inet_protocols = ipv4
		mydestination =
		alias_maps =
		alias_database =
		virtual_mailbox_domains = example.test
		virtual_mailbox_maps = static:yes
		virtual_transport = $3
		default_process_limit = 200
		smtpd_client_connection_count_limit = 0
		smtpd_tls_security_level = may
		smtpd_tls_cert_file = $dir/cert.pem
		smtpd_tls_key_file = $dir/key.pem
	END
	if [ "${LOG:-no}" = yes ]; then
		cat >>"$dir/$1/main.cf" <<-END
			maillog_file = $dir/$1/log
			maillog_file_prefixes = $dir
		END
	fi
	master_config "$2" >"$dir/$1/master.cf"
}

# The services of Debian's master.cf, without chroot.
master_config() { # port
	cat <<-END
		127.0.0.1:$1 inet n - n - - smtpd
		postlog unix-dgram n - n - 1 postlogd
		pickup unix n - n 60 1 pickup
		cleanup unix n - n - 0 cleanup
		qmgr unix n - n 300 1 qmgr
		tlsmgr unix - - n 1000? 1 tlsmgr
		rewrite unix - - n - - trivial-rewrite
		bounce unix - - n - 0 bounce
		defer unix - - n - 0 bounce
		trace unix - - n - 0 bounce
		verify unix - - n - 1 verify
		flush unix n - n 1000? 0 flush
		proxymap unix - - n - - proxymap
		proxywrite unix - - n - 1 proxymap
		smtp unix - - n - - smtp
		relay unix - - n - - smtp
		showq unix n - n - - showq
		error unix - - n - - error
		retry unix - - n - - error
		discard unix - - n - - discard
		lmtp unix - - n - - lmtp
		anvil unix - - n - 1 anvil
		scache unix - - n - 1 scache
	END
}

dovecot_config() {
	dovecot_info=/dev/null
	if [ "${LOG:-no}" = yes ]; then dovecot_info=$dir/dovecot/log; fi
	mkdir -p "$dir/dovecot" "$dir/maildirs"
	chown nobody "$dir/maildirs"
	cat >"$dir/dovecot/dovecot.conf" <<-END
		base_dir = $dir/dovecot/run
		state_dir = $dir/dovecot/state
		log_path = $dir/dovecot/log
		info_log_path = $dovecot_info
		protocols = imap lmtp
		listen = 127.0.0.1
		ssl = yes
		ssl_cert = <$dir/cert.pem
		ssl_key = <$dir/key.pem
		default_client_limit = 40000
		disable_plaintext_auth = no
		mail_location = maildir:$dir/maildirs/%u
		mail_uid = nobody
		mail_gid = nogroup
		first_valid_uid = 1
		mail_fsync = always
		mail_max_userip_connections = 10000
		passdb {
		  driver = static
		  args = password=bench
		}
		userdb {
		  driver = static
		  args = uid=nobody gid=nogroup home=$dir/maildirs/%u allow_all_users=yes
		}
		service imap-login {
		  process_limit = 10000
		  inet_listener imap {
		    port = $imap_port
		  }
		  inet_listener imaps {
		    port = $imaps_port
		    ssl = yes
		  }
		}
		service imap {
		  process_limit = 10000
		}
		service lmtp {
		  unix_listener lmtp {
		    mode = 0666
		  }
		}
	END
}

certificate() {
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost \
		-keyout "$dir/key.pem" -out "$dir/cert.pem" 2>/dev/null
}

listens() { timeout 1 bash -c "exec 3<>/dev/tcp/127.0.0.1/$1" 2>/dev/null; }

wait_for_port() {
	for _ in $(seq 100); do
		if listens "$1"; then return 0; fi
		sleep 0.1
	done
	die "nothing listens on 127.0.0.1:$1 after 10 s; see $dir"
}

start() {
	[ "$(id -u)" = 0 ] || die "Postfix and Dovecot need root to start"
	command -v postfix >/dev/null || die "postfix is not installed"
	command -v dovecot >/dev/null || die "dovecot-imapd and dovecot-lmtpd are not installed"
	dir=${1:-$(mktemp -d /var/tmp/compare.XXXXXX)}
	mkdir -p "$dir"
	chmod 755 "$dir"
	dir=$(cd "$dir" && pwd)
	case $(stat -f -c %T "$dir") in tmpfs | ramfs) die "$dir is in memory, where fsync costs nothing" ;; esac
	[ ! -e "$dir/ports" ] || die "$dir was used already"
	discard_port=${DISCARD_PORT:-12525} mail_port=${MAIL_PORT:-12526} imap_port=${IMAP_PORT:-12143} imaps_port=${IMAPS_PORT:-12993}
	for port in $discard_port $mail_port $imap_port $imaps_port; do
		if listens "$port"; then die "port $port is in use; choose others, see the head of this script"; fi
	done
	certificate
	postfix_config discard "$discard_port" discard:
	postfix_config mail "$mail_port" "lmtp:unix:$dir/dovecot/run/lmtp"
	dovecot_config
	echo "$discard_port $mail_port $imap_port $imaps_port" >"$dir/ports"
	ulimit -n 50000 2>/dev/null || true # Dovecot warns below
	dovecot -c "$dir/dovecot/dovecot.conf"
	postfix -c "$dir/discard" start >"$dir/discard/start" 2>&1 || die "Postfix did not start: $(cat "$dir/discard/start")"
	postfix -c "$dir/mail" start >"$dir/mail/start" 2>&1 || die "Postfix did not start: $(cat "$dir/mail/start")"
	for port in $(cat "$dir/ports"); do wait_for_port "$port"; done
	show
}

pid() { tr -d ' ' <"$1"; }

show() {
	read -r discard_port mail_port imap_port imaps_port <"$dir/ports"
	cat <<-END
		DIR=$dir
		DISCARD_SMTP=127.0.0.1:$discard_port
		DISCARD_PID=$(pid "$dir/discard/queue/pid/master.pid")
		MAIL_SMTP=127.0.0.1:$mail_port
		MAIL_IMAP=127.0.0.1:$imap_port
		MAIL_IMAPS=127.0.0.1:$imaps_port
		MAIL_PIDS=$(pid "$dir/mail/queue/pid/master.pid"),$(pid "$dir/dovecot/run/master.pid")
		PASSWORD=bench
	END
}

# measure takes the figures that docs/bench.md compares.
measure() { # the command postroad
	eval "$(show)"
	for connections in 1 10 50; do
		"$1" bench smtp --addr "$DISCARD_SMTP" --to bench@example.test -c $connections -d 8s \
			--pid "$DISCARD_PID" --path "$DIR" --settle 30s
	done
	for accounts in 1 10; do
		# shellcheck disable=SC2046 # one word for each account
		"$1" bench e2e --addr "$MAIL_SMTP" --imap-addr "$MAIL_IMAP" -c 10 -d 8s \
			$(seq -f "--account=user%g@example.test:$PASSWORD" $accounts) \
			--pid "$MAIL_PIDS" --path "$DIR" --settle 30s
	done
	ulimit -n 20000 2>/dev/null || true
	for port in "$MAIL_IMAP" "$MAIL_IMAPS --tls implicit --insecure"; do
		# shellcheck disable=SC2086 # an address and its options
		"$1" bench imap --addr $port --user "imap$$@example.test" --password "$PASSWORD" \
			-n "${MESSAGES:-10000}" --idle "${IDLE:-2000}" --pid "${MAIL_PIDS#*,}" --path "$DIR"
	done
}

# smtp prints one table of how servers accept mail.
smtp() { # [--binary OTHER]... POSTROAD
	others= server=
	while [ "${1:-}" = --binary ]; do
		command -v "${2:?say which other binary}" >/dev/null || die "$2 is not a command"
		others="$others $2"
		shift 2
	done
	generator=${1:?say which postroad}
	command -v "$generator" >/dev/null || die "$generator is not a command"
	ulimit -n 20000 2>/dev/null || true
	work=$(mktemp -d /var/tmp/compare.XXXXXX)
	chmod 755 "$work"
	trap 'smtp_end' EXIT
	trap 'exit 1' INT TERM
	if [ "$(id -u)" = 0 ] && command -v postfix >/dev/null && command -v dovecot >/dev/null; then
		start "$work/other" >"$work/started"
	fi
	echo "server                     tls       size  connections  messages/s   p50 ms   p99 ms  cpu ms per message  failed"
	for tls in ${TLS:-none starttls}; do
		for size in ${SIZES:-4k 64k}; do
			for connections in ${CONNECTIONS:-1 10 50 200}; do
				for binary in "$generator" $others; do postroad_point "$binary"; done
				if [ -e "$work/started" ]; then postfix_point; fi
			done
		done
	done
}

# smtp_end stops what was started and removes it.
smtp_end() {
	if [ -n "$server" ]; then kill "$server" || true; fi
	dir=$work/other
	stop
	rm -rf "$work"
}

# postroad_point starts a new server of the command for one point of the table.
postroad_point() { # command
	rm -rf "$work/postroad"
	mkdir "$work/postroad"
	"$1" quickstart --dir "$work/postroad/data" --json --user bench@example.test:bench --smtp 127.0.0.1:0 \
		--submission off --submissions off --imap off --imaps off >"$work/postroad/ready" 2>"$work/postroad/log" &
	server=$!
	for _ in $(seq 100); do
		if [ -s "$work/postroad/ready" ]; then break; fi
		sleep 0.1
	done
	[ -s "$work/postroad/ready" ] || die "$1 did not start: $(cat "$work/postroad/log")"
	point "$(basename "$1")" "$(sed 's/.*"smtp":"\([^"]*\)".*/\1/' "$work/postroad/ready")" $server
	kill $server
	wait $server || true
	server=
}

postfix_point() { point Postfix "127.0.0.1:$discard_port" "$(pid "$dir/discard/queue/pid/master.pid")"; }

# point loads a server and prints its row.
point() { # name, address, process id
	"$generator" bench smtp --addr "$2" --to bench@example.test -c "$connections" --size "$size" --tls "$tls" --insecure \
		-d "${TIME:-3s}" --pid "$3" --settle 30s >"$work/point" 2>/dev/null || true
	awk -v name="$1" -v tls="$tls" -v size="$size" -v connections="$connections" '
		/ accepted$/ && !/recipients/ { rate = $2; p50 = $5; p99 = $7 }
		/^recipients accepted/ { match($0, /failed [0-9]+/); failed = substr($0, RSTART + 7, RLENGTH - 7) }
		/^cpu per message/ { cpu = $5 }
		END { printf "%-25s  %-8s  %4s  %11s  %10s  %7s  %7s  %18s  %6s\n", name, tls, size, connections, rate, p50, p99, cpu, failed }
	' "$work/point"
}

# relay prints one table of how servers send on what they held.
relay() { # POSTROAD
	generator=$(command -v "${1:?say which postroad}") || die "$1 is not a command"
	case $generator in /*) ;; *) generator=$(pwd)/$generator ;; esac
	relay_port=${RELAY_PORT:-12527} sink_port=${SINK_PORT:-12626} server=
	for port in $relay_port $sink_port; do
		if listens "$port"; then die "port $port is in use; choose others, see the head of this script"; fi
	done
	work=$(mktemp -d /var/tmp/compare.XXXXXX)
	chmod 755 "$work"
	trap 'relay_end' EXIT
	trap 'exit 1' INT TERM
	echo "server     messages  destinations  accepted/s  drained/s  cpu ms per message"
	for messages in ${MESSAGES:-3000 20000}; do
		for destinations in ${DESTINATIONS:-1 1000}; do
			relay_postroad
			if [ "$(id -u)" = 0 ] && command -v postfix >/dev/null; then relay_postfix; fi
		done
	done
}

relay_end() {
	if [ -n "$server" ]; then kill "$server" || true; fi
	dir=$work
	end "$work/relay/queue/pid/master.pid" master
	rm -rf "$work"
}

# each_destination prints something for each domain, with the address and the port of its host.
each_destination() { # format
	awk -v format="$1" -v n="$destinations" -v port="$sink_port" 'BEGIN {
		if (n == 1) { printf format, "sink.test", "127.0.0.1", port; exit }
		for (i = 0; i < n; i++) printf format, "d" i ".sink.test", "127.0." int((i + 1) / 256) "." (i + 1) % 256, port
	}'
}

# relay_postroad measures a new server of the command. What is there for one destination waits for that; for many, on hold.
relay_postroad() {
	rm -rf "$work/postroad"
	mkdir "$work/postroad"
	cat >"$work/postroad/postroad.toml" <<-END
		hostname = "relay.example.test"
		data_dir = "data"
		[listen]
		smtp = "off"
		submission = "off"
		submissions = "127.0.0.1:$relay_port"
		imap = "off"
		imaps = "off"
	END
	each_destination '[[route]]\ndomain = "%s"\nhost = "%s"\nport = %s\ntls = "none"\n' >>"$work/postroad/postroad.toml"
	command="$generator --config $work/postroad/postroad.toml"
	$command serve >/dev/null 2>"$work/postroad/log" &
	server=$!
	wait_for_port "$relay_port"
	wait="destination suspend sink.test" go="destination resume sink.test"
	if [ "$destinations" != 1 ]; then wait="hold-rule add --sender bench@example.test" go="queue release --all"; fi
	{
		$command domain add example.test
		echo "bench bench bench" | $command account add bench@example.test
		$command account set bench@example.test --daily-messages 0 --daily-recipients 0 --daily-new-recipients 0
		$command $wait
	} >"$work/postroad/made" 2>&1 || die "the account was not made: $(cat "$work/postroad/made")"
	relay_point postroad $server "$command $go" --tls implicit --insecure --user bench@example.test \
		--password "bench bench bench" --from bench@example.test
	kill $server
	wait $server || true
	server=
}

# relay_postfix measures a new Postfix, which defers all that is to go by SMTP while it is filled.
relay_postfix() {
	rm -rf "$work/relay"
	dir=$work
	postfix_config relay "$relay_port" smtp:
	sed -i '/^virtual_/d' "$work/relay/main.cf"
	each_destination '%s smtp:[%s]:%s\n' >"$work/relay/transport"
	cat >>"$work/relay/main.cf" <<-END
		transport_maps = texthash:$work/relay/transport
		defer_transports = smtp
		smtp_tls_security_level = none
		smtpd_relay_restrictions = permit_mynetworks, reject
	END
	postfix -c "$work/relay" start >"$work/relay/start" 2>&1 || die "Postfix did not start: $(cat "$work/relay/start")"
	wait_for_port "$relay_port"
	relay_point Postfix "$(pid "$work/relay/queue/pid/master.pid")" \
		"postconf -c $work/relay -e defer_transports= && postfix -c $work/relay reload && postqueue -c $work/relay -f"
	end "$work/relay/queue/pid/master.pid" master
}

# relay_point loads a server, releases what it held, and prints its row; "-" is what was not measured.
relay_point() { # name, process id, how to release, options
	name=$1 process=$2 release=$3
	shift 3
	"$generator" bench relay --addr "127.0.0.1:$relay_port" --sink "127.0.0.1:$sink_port" --hosts "$((destinations + 1))" \
		--to bench@sink.test --destinations "$destinations" -n "$messages" -c 10 --drain "${DRAIN:-20m}" \
		--pid "$process" --settle 5s --release "$release" "$@" >"$work/point" 2>"$work/error" || cat "$work/error" >&2
	awk -v name="$name" -v messages="$messages" -v destinations="$destinations" '
		BEGIN { accepted = drained = cpu = "-" }
		/ accepted$/ && !/recipients/ { accepted = $2 }
		/ drained$/ { drained = $2; if ($1 != messages) short = "  only " $1 " came" }
		/^cpu per message/ { cpu = $5 }
		END { printf "%-9s  %8s  %12s  %10s  %9s  %18s%s\n", name, messages, destinations, accepted, drained, cpu, short }
	' "$work/point"
}

# end stops the process of a pid file, which still has to be the one named.
end() { # pid file, name
	[ -s "$1" ] || return 0
	pid=$(pid "$1")
	[ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ] || return 0
	kill "$pid"
	for _ in $(seq 100); do
		[ -e "/proc/$pid" ] || return 0
		sleep 0.1
	done
	die "process $pid ($2) does not end; its directory is $dir"
}

stop() {
	end "$dir/discard/queue/pid/master.pid" master
	end "$dir/mail/queue/pid/master.pid" master
	end "$dir/dovecot/run/master.pid" dovecot
}

case ${1:-} in
start) start "${2:-}" ;;
show | stop | measure)
	[ -e "${2:?say which directory}/ports" ] || die "$2 was not made by compare.sh start"
	dir=$(cd "$2" && pwd)
	[ "$1" != measure ] || command -v "${3:?say which postroad}" >/dev/null || die "$3 is not a command"
	"$1" "${3:-}"
	;;
smtp)
	shift
	smtp "$@"
	;;
relay)
	shift
	relay "$@"
	;;
*) die "use: compare.sh start [DIR] | show DIR | measure DIR POSTROAD | stop DIR | smtp [--binary OTHER]... POSTROAD | relay POSTROAD" ;;
esac
