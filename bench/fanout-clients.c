// The subscribers of the fan-out benchmark: ten thousand sockets in one epoll loop that speak as much MQTT 3.1.1 as it takes. In C, so that
// what is measured is the broker's way to the last of them and not theirs. Commands come on stdin, answers go to stdout, a line each:
//
//   connect PORT COUNT TOPIC…   more subscribers, QoS 1         → connect NAME-OF-THE-FIRST
//   stall                       the first one reads no more      → stall
//   expect MARK COUNT           COUNT notices that end in MARK   → ready, then: heard LAST
//
// Every one of ten thousand devices has a processor of its own and hears what it is sent while another acknowledges. Here a thread acknowledges
// what another has read: at once, so that the broker has acknowledgements to read while it still sends, and not in the time of whoever hears.
//
// Times are CLOCK_MONOTONIC in milliseconds. A failure ends the process with a message.

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int epoll_fd, first_fd = -1;
static char first_name[16];
static uint32_t mark;
static long expected;

// Of the notices heard, in order. More than any round's.
#define UNACKNOWLEDGED_MAX 65536
static struct { int fd; uint8_t id[2]; } unacknowledged[UNACKNOWLEDGED_MAX];
static unsigned heard_count, acknowledged_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t something_heard = PTHREAD_COND_INITIALIZER;

static void die(const char *what) {
  perror(what);
  exit(1);
}

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static size_t text(uint8_t *to, const char *value) {
  size_t length = strlen(value);
  to[0] = length >> 8;
  to[1] = length & 255;
  memcpy(to + 2, value, length);
  return length + 2;
}

// One packet of less than 128 bytes of body.
static void send_packet(int fd, uint8_t header, const uint8_t *body, size_t length) {
  uint8_t packet[130];
  packet[0] = header;
  packet[1] = length;
  memcpy(packet + 2, body, length);
  if (send(fd, packet, length + 2, 0) != (ssize_t)(length + 2)) die("send");
}

static void subscribe(int port, char **topics, int count) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, own;
  socklen_t size = sizeof own;
  int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0) die("connect");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  getsockname(fd, (struct sockaddr *)&own, &size);
  // The bench's broker knows a peer by its port, for want of a certificate.
  char name[16];
  snprintf(name, sizeof name, "p%d", ntohs(own.sin_port));
  uint8_t body[128], answer[64];
  size_t length = text(body, "MQTT");
  memcpy(body + length, "\x04\x02\x0e\x10", 4);
  length += 4;
  length += text(body + length, name);
  send_packet(fd, 0x10, body, length);
  if (recv(fd, answer, 4, MSG_WAITALL) != 4 || answer[0] != 0x20 || answer[3] != 0) die("CONNACK");
  body[0] = 0;
  body[1] = 1;
  length = 2;
  for (int i = 0; i < count; i++) {
    length += text(body + length, topics[i]);
    body[length++] = 1;
  }
  send_packet(fd, 0x82, body, length);
  if (recv(fd, answer, 4 + count, MSG_WAITALL) != 4 + count || answer[0] != 0x90 || answer[4] != 1) die("SUBACK");
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
  if (first_fd < 0) {
    first_fd = fd;
    strcpy(first_name, name);
  }
}

static void acknowledge_later(int fd, const uint8_t *id) {
  pthread_mutex_lock(&lock);
  if (heard_count - acknowledged_count == UNACKNOWLEDGED_MAX) die("too many unacknowledged");
  unsigned at = heard_count++ % UNACKNOWLEDGED_MAX;
  unacknowledged[at].fd = fd;
  memcpy(unacknowledged[at].id, id, 2);
  pthread_cond_signal(&something_heard);
  pthread_mutex_unlock(&lock);
}

static void *acknowledge(void *unused) {
  for (;;) {
    pthread_mutex_lock(&lock);
    while (heard_count == acknowledged_count) pthread_cond_wait(&something_heard, &lock);
    unsigned begin = acknowledged_count, end = heard_count;
    pthread_mutex_unlock(&lock);
    // What stands between the two is this thread's until it says that it is done.
    for (unsigned i = begin; i != end; i++) {
      unsigned at = i % UNACKNOWLEDGED_MAX;
      send_packet(unacknowledged[at].fd, 0x40, unacknowledged[at].id, 2);
    }
    pthread_mutex_lock(&lock);
    acknowledged_count = end;
    pthread_mutex_unlock(&lock);
  }
  return unused;
}

// Every PUBLISH of a round came whole: a notice on an idle connection. What was retained came with another mark.
static void hear(int fd) {
  uint8_t data[16384];
  ssize_t length = recv(fd, data, sizeof data, MSG_DONTWAIT);
  if (length < 0 && errno == EAGAIN) return;
  if (length <= 0) die("a connection ended");
  for (ssize_t at = 0; at + 2 < length;) {
    int is_long = data[at + 1] >= 0x80;
    size_t rest = is_long ? (data[at + 1] & 0x7f) + data[at + 2] * 128 : data[at + 1];
    uint8_t *body = data + at + (is_long ? 3 : 2);
    if (data[at] >> 4 == 3) {
      size_t name = body[0] << 8 | body[1];
      uint32_t tail;
      if (data[at] & 6) acknowledge_later(fd, body + 2 + name);
      memcpy(&tail, body + rest - 4, 4);
      if (ntohl(tail) == mark && --expected == 0) printf("heard %.3f\n", now_ms());
    }
    at = body + rest - data;
  }
}

static void command(char *line) {
  char *words[16];
  int count = 0;
  for (char *word = strtok(line, " \n"); word && count < 16; word = strtok(NULL, " \n")) words[count++] = word;
  if (count >= 4 && !strcmp(words[0], "connect")) {
    for (int left = atoi(words[2]); left > 0; left--) subscribe(atoi(words[1]), words + 3, count - 3);
    printf("connect %s\n", first_name);
  } else if (count == 1 && !strcmp(words[0], "stall")) {
    epoll_ctl(epoll_fd, EPOLL_CTL_DEL, first_fd, NULL);
    printf("stall\n");
  } else if (count == 3 && !strcmp(words[0], "expect")) {
    mark = strtoul(words[1], NULL, 10);
    expected = atol(words[2]);
    printf("ready\n");
  } else die("command");
}

int main(void) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  setvbuf(stdin, NULL, _IONBF, 0);
  epoll_fd = epoll_create1(0);
  pthread_t acknowledging;
  if (pthread_create(&acknowledging, NULL, acknowledge, NULL)) die("thread");
  struct epoll_event event = {.events = EPOLLIN, .data.fd = 0}, events[256];
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &event);
  for (;;) {
    int count = epoll_wait(epoll_fd, events, 256, -1);
    for (int i = 0; i < count; i++) {
      if (events[i].data.fd != 0) hear(events[i].data.fd);
      else {
        char line[1024];
        if (!fgets(line, sizeof line, stdin)) return 0;
        command(line);
      }
    }
  }
}
