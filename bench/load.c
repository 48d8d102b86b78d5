/* load.c - one-thread epoll load generator, and a sink, for bench/run.
 *
 *   load --connect IP:PORT [--via none|forward|connect|socks5] --target IP:PORT [--path /p]
 *        [-c CONNECTIONS] [-d SECONDS] [--close] [--rate PER_SECOND] [--hold]
 *   load --sink PORT
 *
 * It asks for --path again and again, over kept connections or (--close) a new one each time, and counts the
 * responses whose status is 200. --rate is an open loop: a latency counts from the time its request was due.
 * --hold opens the connections (a tunnel each; with --via forward, one request each), prints its line, and keeps
 * them until stdin ends. --sink accepts on loopback, reads and drops, until stdin ends.
 * Prints one line of JSON. IPv4 loopback only; always stops by itself.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum via { NONE, FORWARD, CONNECT, SOCKS5 };
/* What a connection waits for. OFF: not open; IDLE: nothing, it is there for a request or to be held. */
enum state { OFF, DIAL, CONNECTED, METHOD, REPLY, HEAD, BODY, IDLE };
enum fault { F_DIAL, F_PROXY, F_STATUS, F_CUT, F_PROTOCOL, FAULTS };

static struct {
	struct sockaddr_in addr;
	enum via via;
	const char *target, *path;
	int conns, close, hold;
	double secs, rate;
} o = { .path = "/", .conns = 1, .secs = 1 };

#define IN 4096
struct conn {
	int fd, used, persists;     /* used: a response has come on this connection */
	enum state state;
	int in_len, out_len, out_at;
	long long left;             /* bytes of the body; -1: until the end of the connection */
	uint64_t since;             /* when the request in flight began, or was due */
	char out[1024], in[IN];
};

static int ep, quit;
static struct conn *conns, **idle;
static int idle_n;
static long long ok, bad, started, bytes, redials, held, due, faults[FAULTS];
static uint64_t begin;

#define MAX_LATENCIES 8000000
static uint32_t *latency;
static long long latency_n;

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void die(const char *what)
{
	fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
	exit(2);
}

static void dial(struct conn *c);

static void hang_up(struct conn *c)
{
	if (c->fd >= 0) close(c->fd);
	c->fd = -1;
	c->state = OFF;
}

static void fail(struct conn *c, enum fault kind)
{
	faults[kind]++;
	bad++;
	hang_up(c);
	if (bad > 500 + ok / 4) quit = 1;
	if (!quit && !o.hold) dial(c);
}

static void put(struct conn *c, const void *b, int n)
{
	if (c->out_len + n > (int)sizeof c->out) die("request too long");
	memcpy(c->out + c->out_len, b, n);
	c->out_len += n;
}

static void ask(struct conn *c)
{
	char b[900];
	int n = snprintf(b, sizeof b, "GET %s%s%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n%s\r\n",
		o.via == FORWARD ? "http://" : "", o.via == FORWARD ? o.target : "", o.path, o.target,
		o.close ? "Connection: close\r\n" : "");
	put(c, b, n);
	c->state = HEAD;
	c->in_len = 0;
}

/* The connection can take a request: gives it one, or parks it. */
static void ready(struct conn *c)
{
	if (o.hold && (c->used || o.via != FORWARD)) {
		c->state = IDLE;
		held++;
	} else if (o.rate > 0) {
		if (started >= due || quit) {
			c->state = IDLE;
			idle[idle_n++] = c;
			return;
		}
		c->since = begin + (uint64_t)(started++ * 1e9 / o.rate);
		ask(c);
	} else if (quit) {
		hang_up(c);
	} else {
		/* With --close the time of the set-up belongs to the request. */
		if (!o.close) c->since = now();
		ask(c);
	}
}

static void connected(struct conn *c)
{
	char b[300];
	c->in_len = 0;
	if (o.via == CONNECT) {
		put(c, b, snprintf(b, sizeof b, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", o.target, o.target));
		c->state = CONNECTED;
	} else if (o.via == SOCKS5) {
		put(c, "\5\1\0", 3);
		c->state = METHOD;
	} else ready(c);
}

static void dial(struct conn *c)
{
	int one = 1;
	struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c };
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0) die("socket");
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	c->used = c->in_len = c->out_len = c->out_at = 0;
	c->since = now();
	c->state = DIAL;
	if (epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev)) die("epoll_ctl");
	if (connect(c->fd, (void *)&o.addr, sizeof o.addr) && errno != EINPROGRESS) fail(c, F_DIAL);
}

static void done(struct conn *c)
{
	uint64_t us = (now() - c->since) / 1000;
	if (latency_n < MAX_LATENCIES) latency[latency_n++] = us > UINT32_MAX ? UINT32_MAX : us;
	ok++;
	c->used = 1;
	if (o.close || !c->persists) {
		hang_up(c);
		if (!o.close) redials++;
		if (!quit) dial(c);
	} else ready(c);
}

/* Looks at a response's head. A body has a length or ends with the connection. */
static void head(struct conn *c)
{
	char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4), *field;
	if (!end) {
		if (c->in_len >= IN - 1) fail(c, F_PROTOCOL);
		return;
	}
	end[2] = 0;
	if (strncmp(c->in, "HTTP/1.", 7)) return fail(c, F_PROTOCOL);
	if (atoi(c->in + 9) != 200) return fail(c, F_STATUS);
	int extra = c->in + c->in_len - (end + 4);
	field = strcasestr(c->in, "\ncontent-length:");
	c->persists = field && c->in[7] == '1' && !strcasestr(c->in, "\nconnection: close");
	c->left = field ? atoll(field + 16) - extra : -1;
	if (field ? c->left < 0 : strcasestr(c->in, "\ntransfer-encoding:") != NULL) return fail(c, F_PROTOCOL);
	bytes += extra;
	c->state = BODY;
}

static void drop_idle(struct conn *c)
{
	for (int i = 0; i < idle_n; i++)
		if (idle[i] == c) {
			idle[i] = idle[--idle_n];
			return;
		}
}

/* The peer has closed or reset. */
static void ended(struct conn *c, int clean)
{
	if (c->state == BODY && c->left < 0 && clean) {
		done(c);
	} else if (quit) {
		hang_up(c);
	} else if (!o.hold && (c->state == IDLE || (c->state == HEAD && c->in_len == 0 && c->used))) {
		/* A kept connection may end between two requests. */
		if (o.rate > 0 && c->state == HEAD) started--;
		drop_idle(c);
		hang_up(c);
		if (++redials > 1000 + ok) quit = 1;
		else dial(c);
	} else {
		if (c->state == IDLE) held--;
		fail(c, c->state == CONNECTED || c->state == METHOD || c->state == REPLY ? F_PROXY : F_CUT);
	}
}

/* Takes what has been read, if it is enough. */
static void take(struct conn *c)
{
	if (c->state == CONNECTED) {
		if (!memmem(c->in, c->in_len, "\r\n\r\n", 4)) return;
		if (atoi(c->in + 9) / 100 != 2) return fail(c, F_PROXY);
		ready(c);
	} else if (c->state == METHOD) {
		unsigned char q[10] = { 5, 1, 0, 1 };
		char ip[64];
		const char *colon = strrchr(o.target, ':');
		if (c->in_len < 2) return;
		if (c->in[1]) return fail(c, F_PROXY);
		snprintf(ip, sizeof ip, "%.*s", (int)(colon - o.target), o.target);
		inet_pton(AF_INET, ip, q + 4);
		q[8] = atoi(colon + 1) >> 8;
		q[9] = atoi(colon + 1);
		c->in_len = 0;
		c->state = REPLY;
		put(c, q, sizeof q);
	} else if (c->state == REPLY) {
		if (c->in_len < 10) return;
		if (c->in[1]) return fail(c, F_PROXY);
		ready(c);
	} else if (c->state == HEAD) {
		head(c);
	} else c->in_len = 0;
}

static int is_connected(struct conn *c)
{
	struct tcp_info info;
	int error = 0;
	socklen_t n = sizeof error;
	getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &n);
	if (error) return fail(c, F_DIAL), 0;
	n = sizeof info;
	getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &n);
	return info.tcpi_state != TCP_SYN_SENT;
}

/* Goes on with a connection as far as it goes. */
static void drive(struct conn *c)
{
	if (c->state == DIAL && is_connected(c)) connected(c);
	while (c->state != OFF && c->state != DIAL) {
		while (c->out_at < c->out_len) {
			ssize_t n = send(c->fd, c->out + c->out_at, c->out_len - c->out_at, MSG_NOSIGNAL);
			if (n < 0 && errno == EAGAIN) return;
			if (n < 0) return ended(c, 0);
			c->out_at += n;
			/* Edge triggered: the answer brings an event of its own. */
			if (c->out_at == c->out_len && (c->state == HEAD || c->state == CONNECTED)) {
				c->out_at = c->out_len = 0;
				return;
			}
		}
		c->out_at = c->out_len = 0;
		if (c->state == BODY && c->left == 0) {
			done(c);
			continue;
		}
		ssize_t n;
		if (c->state == BODY) {
			/* The kernel drops the bytes without copying them. */
			n = recv(c->fd, NULL, c->left < 0 || c->left > 1 << 20 ? 1 << 20 : c->left, MSG_TRUNC);
			if (n > 0) {
				bytes += n;
				if (c->left > 0) c->left -= n;
				continue;
			}
		} else {
			n = recv(c->fd, c->in + c->in_len, IN - 1 - c->in_len, 0);
			if (n > 0) c->in[c->in_len += n] = 0;
		}
		if (n < 0 && errno == EAGAIN) return;
		if (n <= 0) return ended(c, n == 0);
		take(c);
	}
}

static int sink(int port)
{
	static char scratch[1 << 18];
	int l = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct epoll_event ev = { .events = EPOLLIN, .data.fd = l }, evs[256];
	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(l, (void *)&a, sizeof a) || listen(l, 4096)) die("sink");
	epoll_ctl(ep, EPOLL_CTL_ADD, l, &ev);
	ev.data.fd = 0;
	epoll_ctl(ep, EPOLL_CTL_ADD, 0, &ev);
	for (;;) {
		int n = epoll_wait(ep, evs, 256, -1);
		for (int i = 0; i < n; i++) {
			int fd = evs[i].data.fd, c;
			if (fd == 0) return 0;
			if (fd != l) {
				if (recv(fd, scratch, sizeof scratch, 0) <= 0) close(fd);
				continue;
			}
			while ((c = accept4(l, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
				ev.data.fd = c;
				epoll_ctl(ep, EPOLL_CTL_ADD, c, &ev);
			}
		}
	}
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(uint32_t *)a, y = *(uint32_t *)b;
	return x < y ? -1 : x > y;
}

static uint32_t percentile(double q) { return latency_n ? latency[(long long)(q * (latency_n - 1))] : 0; }

static void arguments(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *a = argv[i];
#define VALUE (++i < argc ? argv[i] : (exit(2), ""))
		if (!strcmp(a, "--connect")) {
			char *v = strdup(VALUE), *colon = strrchr(v, ':');
			if (!colon) exit(2);
			*colon = 0;
			o.addr = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(atoi(colon + 1)) };
			if (inet_pton(AF_INET, v, &o.addr.sin_addr) != 1 || ntohl(o.addr.sin_addr.s_addr) >> 24 != 127) die("not loopback");
		} else if (!strcmp(a, "--via")) {
			const char *v = VALUE;
			o.via = !strcmp(v, "forward") ? FORWARD : !strcmp(v, "connect") ? CONNECT : !strcmp(v, "socks5") ? SOCKS5 : NONE;
		} else if (!strcmp(a, "--sink")) exit(sink(atoi(VALUE)));
		else if (!strcmp(a, "--target")) o.target = VALUE;
		else if (!strcmp(a, "--path")) o.path = VALUE;
		else if (!strcmp(a, "--close")) o.close = 1;
		else if (!strcmp(a, "--hold")) o.hold = 1;
		else if (!strcmp(a, "--rate")) o.rate = atof(VALUE);
		else if (!strcmp(a, "-c")) o.conns = atoi(VALUE);
		else if (!strcmp(a, "-d")) o.secs = atof(VALUE);
		else die(a);
	}
	if (!o.target) die("--target is wanted");
}

static void run(void)
{
	struct epoll_event evs[512];
	int opened = 0;
	uint64_t end = now() + (uint64_t)(o.secs * 1e9);
	begin = now();
	if (o.rate > 0) begin += 200000000ull;      /* the connections come first */
	for (;;) {
		uint64_t t = now();
		struct timespec wait = { 0, 50000000 };
		if (t >= end || quit) return;
		/* Held connections are opened in steps, so that no queue overflows. */
		while (opened < o.conns && (!o.hold || opened - held - bad < 64)) dial(&conns[opened++]);
		if (o.hold && held + bad >= o.conns) return;
		if (o.rate > 0) {
			if (t >= begin) {
				due = (t - begin) * o.rate / 1e9 + 1;
				while (idle_n && started < due) {
					struct conn *c = idle[--idle_n];
					ready(c);
					drive(c);
				}
			}
			int64_t next = begin + (int64_t)(due * 1e9 / o.rate) - now();
			wait.tv_nsec = next < 0 ? 0 : next < wait.tv_nsec ? next : wait.tv_nsec;
		}
		int n = epoll_pwait2(ep, evs, 512, &wait, NULL);
		for (int i = 0; i < n; i++) drive(evs[i].data.ptr);
	}
}

int main(int argc, char **argv)
{
	struct rlimit limit;
	struct rusage use;
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_TIMERSLACK, 1000);
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	ep = epoll_create1(EPOLL_CLOEXEC);
	arguments(argc, argv);
	conns = calloc(o.conns, sizeof *conns);
	idle = calloc(o.conns + 1, sizeof *idle);
	latency = malloc(MAX_LATENCIES * sizeof *latency);
	if (!conns || !idle || !latency) die("memory");
	for (int i = 0; i < o.conns; i++) conns[i].fd = -1;
	run();
	double secs = (now() - begin) / 1e9;
	qsort(latency, latency_n, sizeof *latency, compare);
	getrusage(RUSAGE_SELF, &use);
	printf("{\"ok\":%lld,\"err\":%lld,\"bytes\":%lld,\"secs\":%.6f,\"redials\":%lld,\"held\":%lld,\"p50_us\":%u,\"p99_us\":%u,"
	       "\"load_cpu\":%.6f,\"errs\":{\"dial\":%lld,\"proxy\":%lld,\"status\":%lld,\"cut\":%lld,\"protocol\":%lld}}\n",
	       ok, bad, bytes, secs, redials, held, percentile(.5), percentile(.99),
	       use.ru_utime.tv_sec + use.ru_stime.tv_sec + (use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6,
	       faults[F_DIAL], faults[F_PROXY], faults[F_STATUS], faults[F_CUT], faults[F_PROTOCOL]);
	fflush(stdout);
	if (o.hold)
		for (char b; read(0, &b, 1) > 0;) {}
	return 0;
}
