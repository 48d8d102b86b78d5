/* relay.c - the least that a CONNECT proxy can do, as a bound for bench/run: one thread, epoll, splice(2).
 *
 *   relay PORT HOST      listens on loopback; swallows a CONNECT head, dials its port at HOST (IPv4, loopback), answers 200
 *
 * No configuration, log, limit, name look-up or time-out. Small exchanges go by recv and send, which are the fewest
 * calls; behind 64 KiB the kernel splices. It ends with stdin.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define PIPE (1 << 20)

/* Index 0 is the client's side, 1 the server's; pipe[i] carries what comes from side i. */
struct pair {
	int fd[2], pipe[2][2], held[2];
	long long seen[2];
	unsigned char fin[2], head, dead, up;
	struct pair *next;
};
static int ep, pool[4096][2], pooled;
static struct in_addr host;
static struct pair *buried, *spare;

static int take_pipe(int *p)
{
	if (pooled) {
		memcpy(p, pool[--pooled], sizeof *pool);
		return 0;
	}
	if (pipe2(p, O_NONBLOCK | O_CLOEXEC)) return p[0] = p[1] = -1;
	fcntl(p[1], F_SETPIPE_SZ, PIPE);
	return 0;
}

static void give_pipe(int *p, int empty)
{
	if (p[0] < 0) return;
	if (empty && pooled < 256) memcpy(pool[pooled++], p, sizeof *pool);
	else close(p[0]), close(p[1]);
	p[0] = p[1] = -1;
}

static void bury(struct pair *q)
{
	if (q->dead) return;
	q->dead = 1;
	for (int i = 0; i < 2; i++) {
		give_pipe(q->pipe[i], q->held[i] == 0);
		if (q->fd[i] >= 0) close(q->fd[i]);
	}
	q->next = buried;
	buried = q;
}

static void watch(int fd, struct pair *q, int side)
{
	int one = 1;
	struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.u64 = (uintptr_t)q | side };
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
}

static void call(struct pair *q, int port)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = host };
	q->fd[1] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (q->fd[1] < 0 || (connect(q->fd[1], (void *)&to, sizeof to) && errno != EINPROGRESS)) return bury(q);
	watch(q->fd[1], q, 1);
}

static void pump(struct pair *q, int from, int fin_seen)
{
	static char buf[1 << 14];
	int in = q->fd[from], out = q->fd[!from];
	while (!q->dead && !q->fin[from]) {
		ssize_t n;
		if (q->held[from] == 0) {
			int small = q->seen[from] < 1 << 16;
			if (!small && q->pipe[from][0] < 0 && take_pipe(q->pipe[from])) return bury(q);
			n = small ? recv(in, buf, sizeof buf, 0) : splice(in, NULL, q->pipe[from][1], NULL, PIPE, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
			if (n < 0 && errno != EAGAIN) return bury(q);
			if (n <= 0) give_pipe(q->pipe[from], 1);
			if (n < 0) return;
			if (n == 0) {
				q->fin[from] = 1;
				if (q->fin[!from]) bury(q);
				else shutdown(out, SHUT_WR);
				return;
			}
			q->seen[from] += n;
			if (small) {
				ssize_t m = send(out, buf, n, MSG_NOSIGNAL);
				if (m < 0 && errno != EAGAIN) return bury(q);
				if (m < 0) m = 0;
				if (m == n && n < (ssize_t)sizeof buf && !fin_seen) return;
				if (m == n) continue;
				if (take_pipe(q->pipe[from]) || write(q->pipe[from][1], buf + m, n - m) != n - m) return bury(q);
				q->held[from] = n - m;
				return;
			}
			q->held[from] = n;
		}
		n = splice(q->pipe[from][0], NULL, out, NULL, q->held[from], SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
		if (n <= 0) {
			if (n == 0 || errno != EAGAIN) bury(q);
			return;
		}
		q->held[from] -= n;
	}
}

static void accept_all(int listener)
{
	int fd;
	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		struct pair *q = spare;
		if (q) spare = q->next;
		else if (!(q = aligned_alloc(16, (sizeof *q + 15) & ~15ul))) exit(1);
		memset(q, 0, sizeof *q);
		q->fd[0] = fd;
		q->fd[1] = -1;
		memset(q->pipe, -1, sizeof q->pipe);
		q->head = 1;
		watch(fd, q, 0);
	}
}

static void read_head(struct pair *q)
{
	char b[4096];
	ssize_t n = recv(q->fd[0], b, sizeof b - 1, 0);
	if (n == 0 || (n < 0 && errno != EAGAIN)) return bury(q);
	if (n < 4 || memcmp(b + n - 4, "\r\n\r\n", 4)) return;
	b[n] = 0;
	char *colon = strchr(b, ':');
	q->head = 0;
	call(q, colon ? atoi(colon + 1) : 0);
}

static void serve(struct pair *q, int side, int events)
{
	int first = 0;
	if (q->dead) return;
	if (q->head) return read_head(q);
	if (side == 1 && !q->up) {
		if (events & EPOLLERR) return bury(q);
		if (send(q->fd[0], "HTTP/1.1 200 OK\r\n\r\n", 19, MSG_NOSIGNAL) != 19) return bury(q);
		q->up = first = 1;
	}
	if (!q->up) return;
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) pump(q, side, events & (EPOLLRDHUP | EPOLLHUP));
	if (events & EPOLLOUT && !q->dead && (q->held[!side] || first)) pump(q, !side, first);
}

int main(int argc, char **argv)
{
	struct rlimit limit;
	if (argc != 3 || inet_pton(AF_INET, argv[2], &host) != 1 || ntohl(host.s_addr) >> 24 != 127) return 2;
	signal(SIGPIPE, SIG_IGN);
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	ep = epoll_create1(EPOLL_CLOEXEC);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(listener, (void *)&a, sizeof a) || listen(listener, 4096)) return perror("relay"), 1;
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = 1 }, evs[512];
	epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev);
	ev.data.u64 = 0;
	epoll_ctl(ep, EPOLL_CTL_ADD, 0, &ev);
	for (;;) {
		int n = epoll_wait(ep, evs, 512, -1);
		for (int i = 0; i < n; i++) {
			uint64_t data = evs[i].data.u64;
			if (data == 0) return 0;
			if (data == 1) accept_all(listener);
			else serve((void *)(uintptr_t)(data & ~1ull), data & 1, evs[i].events);
		}
		while (buried) {
			struct pair *q = buried;
			buried = q->next;
			q->next = spare;
			spare = q;
		}
	}
}
