/* A line between network namespaces: delay, random loss, a rate and a bounded queue, all changeable while it runs.
 *
 *   line carry SEED NAME=ADDRESS NAME=ADDRESS ...   make a namespace per end, carry IPv4 between them
 *   line enter PID FD COMMAND ARGUMENT ...          run a command in the namespace that FD of process PID holds
 *
 * The namespaces have no names: they live as long as this process and what runs in them, so nothing is left behind
 * even after SIGKILL. When standard input closes (its owner ended, however), this program kills what still runs in
 * its namespaces and ends.
 *
 * Between every ordered pair of ends runs a line of its own: a FIFO of packets, each with the moment at which it is
 * due at the other end. A packet first waits for the line to be free (rate; if that wait is longer than the queue
 * is, it is dropped), then occupies it, then may be lost, then travels (delay).
 *
 * Commands on standard input, one a line, each answered by one line, "ok ..." or "error ...":
 *   set FROM TO DELAY_US LOSS_PPM RATE_BIT_S QUEUE_BYTES      rate 0: no limit
 *   drop FROM TO MASK                                         1: all, 2: UDP, 4: TCP; what is under way is dropped, too
 *   address END ADDRESS                                       the end has this address now, and not the former one
 *   counts FROM TO                                            packets and bytes in, delivered, lost, overflowed, dropped
 *
 * It wakes up at most once in TICK_NS while packets are under way: delivering what is due in a row costs far less
 * than a wake-up per packet, and the tick is short against any delay worth simulating.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/ip.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { ENDS_MAX = 8, MTU = 1500, DEVICE_QUEUE = 5000, READ_BURST = 512 };
enum { DROP_ALL = 1, DROP_UDP = 2, DROP_TCP = 4 };
#define DEVICE "line0"
#define TICK_NS 250000LL
#define RING_BYTES (64u << 20) /* only touched as far as packets are under way at once */

struct record { int64_t due; uint32_t size; uint32_t unused; }; /* followed by the packet, padded to 16 bytes */

struct wire {
    unsigned char *ring;
    uint32_t head, tail, wrap; /* wrap: where the records before the turn end, 0 if there is no turn between */
    int64_t free_at;           /* when the line has sent all that was given to it */
    int64_t delay;
    uint32_t loss_ppm, mask;
    double ns_per_byte;
    int64_t queue_bytes;
    uint64_t packets, bytes, delivered, delivered_bytes, lost, overflowed, dropped;
};

static struct { char name[32]; int tun, netns; uint32_t address; } ends[ENDS_MAX];
static struct wire wires[ENDS_MAX][ENDS_MAX];
static int count;
static uint64_t random_state;

static void fail(const char *what) {
    printf("error %s: %s\n", what, strerror(errno));
    fflush(stdout);
    exit(1);
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static uint32_t random_ppm(void) { /* xorshift64* */
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)(((random_state * 2685821657736338717ULL) >> 32) * 1000000ULL >> 32);
}

/* ---- ends ---------------------------------------------------------------------------------------------------- */

static void write_setting(const char *path, const char *text) {
    int fd = open(path, O_WRONLY);
    if (fd >= 0) {
        if (write(fd, text, strlen(text)) < 0) { /* a kernel without IPv6 has nothing to switch off */ }
        close(fd);
    }
}

static int configure(uint32_t address, int first_time) {
    int control = socket(AF_INET, SOCK_DGRAM, 0), good;
    struct ifreq request;
    struct sockaddr_in *place = (struct sockaddr_in *)&request.ifr_addr;
    memset(&request, 0, sizeof request);
    strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    good = !first_time || !ioctl(control, SIOCSIFFLAGS, &request);
    strcpy(request.ifr_name, DEVICE);
    if (first_time) {
        request.ifr_mtu = MTU;
        good = good && !ioctl(control, SIOCSIFMTU, &request);
        request.ifr_qlen = DEVICE_QUEUE;
        good = good && !ioctl(control, SIOCSIFTXQLEN, &request);
    }
    memset(&request.ifr_addr, 0, sizeof request.ifr_addr);
    place->sin_family = AF_INET;
    place->sin_addr.s_addr = address;
    good = good && !ioctl(control, SIOCSIFADDR, &request);
    place->sin_addr.s_addr = htonl(0xffffff00);
    good = good && !ioctl(control, SIOCSIFNETMASK, &request);
    if (first_time) {
        request.ifr_flags = IFF_UP | IFF_RUNNING;
        good = good && !ioctl(control, SIOCSIFFLAGS, &request);
    }
    struct rtentry route; /* libraries look for the way to the Internet to find "the" address */
    memset(&route, 0, sizeof route);
    route.rt_dst.sa_family = route.rt_genmask.sa_family = AF_INET;
    route.rt_flags = RTF_UP;
    route.rt_dev = DEVICE;
    good = good && (!ioctl(control, SIOCADDRT, &route) || errno == EEXIST);
    close(control);
    return good;
}

static void make_end(int index, const char *name, uint32_t address) {
    snprintf(ends[index].name, sizeof ends[index].name, "%s", name);
    ends[index].address = address;
    if (unshare(CLONE_NEWNET)) fail("network namespaces (unshare)");
    ends[index].netns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    ends[index].tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (ends[index].tun < 0) fail("/dev/net/tun");
    struct ifreq request;
    memset(&request, 0, sizeof request);
    request.ifr_flags = IFF_TUN | IFF_NO_PI;
    strcpy(request.ifr_name, DEVICE);
    if (ioctl(ends[index].tun, TUNSETIFF, &request)) fail("a TUN device (TUNSETIFF)");
    write_setting("/proc/sys/net/ipv6/conf/" DEVICE "/disable_ipv6", "1");
    if (!configure(address, 1)) fail("configuring the TUN device");
}

static int end_named(const char *name) {
    for (int i = 0; i < count; i++)
        if (!strcmp(ends[i].name, name)) return i;
    return -1;
}

/* Nobody enters from here on: the descriptors by which `enter` finds the namespaces are gone, under other numbers. */
static void shut_the_doors(void) {
    for (int i = 0; i < count; i++) {
        int hidden = fcntl(ends[i].netns, F_DUPFD_CLOEXEC, 256); /* no end had, or gets, such a number */
        close(ends[i].netns);
        ends[i].netns = hidden;
    }
}

/* What still runs in the namespaces (this process moved through them, but is none of it). */
static void kill_inhabitants(void) {
    DIR *processes = opendir("/proc");
    struct dirent *entry;
    if (!processes) return;
    while ((entry = readdir(processes))) {
        int pid = atoi(entry->d_name);
        char path[64];
        struct stat its, ours;
        if (pid <= 1 || pid == getpid()) continue;
        snprintf(path, sizeof path, "/proc/%d/ns/net", pid);
        if (stat(path, &its)) continue;
        for (int i = 0; i < count; i++)
            if (!fstat(ends[i].netns, &ours) && ours.st_ino == its.st_ino && ours.st_dev == its.st_dev) kill(pid, SIGKILL);
    }
    closedir(processes);
}

/* ---- the line ------------------------------------------------------------------------------------------------ */

static unsigned masked(const struct wire *w, const unsigned char *packet) {
    int protocol = packet[9];
    return (w->mask & DROP_ALL) || ((w->mask & DROP_UDP) && protocol == IPPROTO_UDP) ||
           ((w->mask & DROP_TCP) && protocol == IPPROTO_TCP);
}

static int append(struct wire *w, const unsigned char *packet, uint32_t size, int64_t due) {
    uint32_t need = (uint32_t)sizeof(struct record) + ((size + 15) & ~15u);
    if (w->head == w->tail && !w->wrap) w->head = w->tail = 0; /* empty: stay where the cache is warm */
    if (w->wrap ? w->tail + need >= w->head : 0) return 0;
    if (!w->wrap && w->tail + need > RING_BYTES) {
        if (need >= w->head) return 0;
        w->wrap = w->tail;
        w->tail = 0;
    }
    struct record *record = (struct record *)(w->ring + w->tail);
    record->due = due;
    record->size = size;
    memcpy(record + 1, packet, size);
    w->tail += need;
    return 1;
}

static struct record *oldest(struct wire *w) {
    if (w->wrap && w->head == w->wrap) w->head = w->wrap = 0;
    return w->head == w->tail && !w->wrap ? NULL : (struct record *)(w->ring + w->head);
}

static void accept_packet(struct wire *w, const unsigned char *packet, uint32_t size, int64_t now) {
    w->packets++;
    w->bytes += size;
    if (masked(w, packet)) { w->dropped++; return; }
    int64_t sent = now;
    if (w->ns_per_byte > 0) {
        int64_t start = w->free_at > now ? w->free_at : now;
        if ((double)(start - now) > (double)w->queue_bytes * w->ns_per_byte) { w->overflowed++; return; }
        sent = w->free_at = start + (int64_t)(size * w->ns_per_byte);
    }
    if (w->loss_ppm && random_ppm() < w->loss_ppm) { w->lost++; return; }
    if (!append(w, packet, size, sent + w->delay)) w->overflowed++;
}

static void take_from(int end) {
    static unsigned char packet[MTU + 64];
    int64_t now = now_ns();
    for (int i = 0; i < READ_BURST; i++) {
        ssize_t size = read(ends[end].tun, packet, sizeof packet);
        if (size <= 0) return;
        if (size < 20 || packet[0] >> 4 != 4) continue;
        uint32_t destination;
        memcpy(&destination, packet + 16, sizeof destination);
        for (int other = 0; other < count; other++)
            if (other != end && ends[other].address == destination)
                accept_packet(&wires[end][other], packet, (uint32_t)size, now);
    }
}

/* Delivers what is due; returns whether packets are still under way. */
static int deliver(struct wire *w, int to) {
    struct record *record;
    while ((record = oldest(w))) {
        if (record->due > now_ns()) return 1;
        if (masked(w, (unsigned char *)(record + 1))) w->dropped++;
        else if (write(ends[to].tun, record + 1, record->size) == (ssize_t)record->size) {
            w->delivered++;
            w->delivered_bytes += record->size;
        } else w->overflowed++;
        w->head += (uint32_t)sizeof(struct record) + ((record->size + 15) & ~15u);
    }
    return 0;
}

/* ---- control ------------------------------------------------------------------------------------------------- */

static void obey(const char *command) {
    char a[32] = "", b[32] = "";
    long long delay, queue, rate;
    unsigned ppm, mask;
    int from, to;
    if (sscanf(command, "address %31s %31s", a, b) == 2) {
        struct in_addr address;
        int end = end_named(a), good;
        if (end < 0 || inet_pton(AF_INET, b, &address) != 1) { printf("error no such end or address\n"); return; }
        if (setns(ends[end].netns, CLONE_NEWNET)) { printf("error setns: %s\n", strerror(errno)); return; }
        good = configure(address.s_addr, 0);
        if (good) ends[end].address = address.s_addr;
        printf(good ? "ok\n" : "error %s\n", strerror(errno));
        return;
    }
    const char *arguments = strchr(command, ' ');
    if (!arguments || sscanf(arguments, "%31s %31s", a, b) != 2 || (from = end_named(a)) < 0 || (to = end_named(b)) < 0 ||
        from == to) {
        printf("error not two ends: %s\n", command);
        return;
    }
    struct wire *w = &wires[from][to];
    if (sscanf(command, "set %*s %*s %lld %u %lld %lld", &delay, &ppm, &rate, &queue) == 4) {
        w->delay = delay * 1000;
        w->loss_ppm = ppm;
        w->ns_per_byte = rate > 0 ? 8e9 / (double)rate : 0;
        w->queue_bytes = queue;
        printf("ok\n");
    } else if (sscanf(command, "drop %*s %*s %u", &mask) == 1) {
        w->mask = mask;
        printf("ok\n");
    } else if (!strncmp(command, "counts ", 7)) {
        printf("ok %llu %llu %llu %llu %llu %llu %llu\n", (unsigned long long)w->packets, (unsigned long long)w->bytes,
               (unsigned long long)w->delivered, (unsigned long long)w->delivered_bytes, (unsigned long long)w->lost,
               (unsigned long long)w->overflowed, (unsigned long long)w->dropped);
    } else printf("error unknown command: %s\n", command);
}

/* Returns 0 once standard input is closed. */
static int read_commands(void) {
    static char text[4096];
    static size_t have;
    ssize_t size = read(STDIN_FILENO, text + have, sizeof text - have - 1);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return 1;
    if (size <= 0) return 0;
    have += (size_t)size;
    text[have] = 0;
    char *line = text, *end;
    while ((end = strchr(line, '\n'))) {
        *end = 0;
        obey(line);
        line = end + 1;
    }
    fflush(stdout);
    have -= (size_t)(line - text);
    memmove(text, line, have);
    return have < sizeof text - 1;
}

static int carry(int argc, char **argv) {
    random_state = strtoull(argv[0], NULL, 10) * 2654435761u + 88172645463325252ULL;
    for (int i = 1; i < argc && count < ENDS_MAX; i++) {
        char *address = strchr(argv[i], '=');
        struct in_addr parsed;
        if (!address || inet_pton(AF_INET, address + 1, &parsed) != 1) { errno = EINVAL; fail(argv[i]); }
        *address = 0;
        make_end(count, argv[i], parsed.s_addr);
        count++;
    }
    for (int i = 0; i < count; i++)
        for (int j = 0; j < count; j++)
            if (i != j) {
                wires[i][j].ring = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
                if (wires[i][j].ring == MAP_FAILED) fail("memory for the line");
            }
    signal(SIGINT, SIG_IGN); /* Ctrl-C is for the owner; the end of its pipe is for us */
    prctl(PR_SET_TIMERSLACK, 1000UL); /* ns */
    fcntl(STDIN_FILENO, F_SETFL, fcntl(STDIN_FILENO, F_GETFL) | O_NONBLOCK);
    printf("ok %d", getpid());
    for (int i = 0; i < count; i++) printf(" %d", ends[i].netns);
    printf("\n");
    fflush(stdout);

    struct pollfd watched[ENDS_MAX + 1] = {{STDIN_FILENO, POLLIN, 0}};
    for (int i = 0; i < count; i++) watched[i + 1] = (struct pollfd){ends[i].tun, POLLIN, 0};
    for (;;) {
        int waiting = 0;
        for (int i = 0; i < count; i++) take_from(i);
        for (int i = 0; i < count; i++)
            for (int j = 0; j < count; j++)
                if (i != j) waiting |= deliver(&wires[i][j], j);
        /* With something under way, new packets wait for the tick, too; on an idle line the first wakes us. */
        const struct timespec tick = {0, TICK_NS};
        int ready = ppoll(watched, waiting ? 1 : (nfds_t)count + 1, waiting ? &tick : NULL, NULL);
        if (ready > 0 && watched[0].revents && !read_commands()) break;
    }
    shut_the_doors();
    kill_inhabitants();
    return 0;
}

/* Looks again once inside: whoever was not seen by kill_inhabitants finds the door shut by then. */
static int enter(char **argv) {
    char path[64];
    struct stat inside, door;
    snprintf(path, sizeof path, "/proc/%s/fd/%s", argv[0], argv[1]);
    int netns = open(path, O_RDONLY | O_CLOEXEC);
    if (netns < 0 || setns(netns, CLONE_NEWNET)) { perror("line: entering the namespace"); return 126; }
    if (fstat(netns, &inside) || stat(path, &door) || inside.st_ino != door.st_ino || inside.st_dev != door.st_dev) {
        fprintf(stderr, "line: the lab has ended\n");
        return 126;
    }
    execvp(argv[2], argv + 2);
    perror(argv[2]);
    return 127;
}

int main(int argc, char **argv) {
    if (argc >= 5 && !strcmp(argv[1], "carry")) return carry(argc - 2, argv + 2);
    if (argc >= 5 && !strcmp(argv[1], "enter")) return enter(argv + 2);
    fprintf(stderr, "usage: line carry SEED NAME=ADDRESS NAME=ADDRESS ... | line enter PID FD COMMAND ...\n");
    return 2;
}
