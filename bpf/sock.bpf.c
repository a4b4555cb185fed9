// SPDX-License-Identifier: Apache-2.0
/*
 * Sockets of a cgroup: what asks for a service talks to a backend from the first packet on, and never learns of it.
 *
 * What a program is told by the kernel lies in the context as in the system call: addresses in network byte order, an
 * IPv4 address in a socket of IPv6 as ::ffff:a.b.c.d, which is how the maps have it.
 */
#include "service.h"

/* What becomes of a call: it goes on, or the caller gets an error. */
#define REFUSE	0
#define PROCEED 1

/* include/uapi/linux/bpf.h of Linux 5.18; older kernels never see the call, see `refuse`. */
static int (*const set_retval)(int retval) = (void *)187;

static __always_inline void count(enum dp_outcome outcome)
{
	__u32 index = outcome;
	struct dp_count *count = bpf_map_lookup_elem(&outcomes, &index);

	if (count)
		count->packets++;
}

static __always_inline int refuse(enum dp_outcome outcome)
{
	count(outcome);
	if (config.refusal)
		set_retval(-(int)config.refusal);
	return REFUSE;
}

/* Sockets of this node itself and of its pods that share its network. */
static __always_inline bool is_of_node(struct bpf_sock_addr *ctx)
{
	__u64 own = config.netns_cookie;

	return bpf_get_netns_cookie(ctx) == (own ?: bpf_get_netns_cookie(NULL));
}

static __always_inline bool is_loopback(const struct dp_address *address)
{
	if (is_mapped(address))
		return bpf_ntohl(address->word[3]) >> 24 == 127;
	return !address->word[0] && !address->word[1] && !address->word[2] &&
	       address->word[3] == bpf_htonl(1);
}

/* What has the address; a port of every node is one of the loopback, too, for this node itself. */
static __always_inline struct dp_frontend *asked_frontend(struct bpf_sock_addr *ctx,
							  const struct dp_backend *asked)
{
	if (is_loopback(&asked->address))
		return is_of_node(ctx) ? node_port(&asked->address, asked->port, ctx->protocol)
				       : NULL;
	return inside_frontend(&asked->address, asked->port, ctx->protocol);
}

/* This node's own address of the family, as its packets would have it. */
static __always_inline bool is_node_allowed(const struct dp_frontend *frontend,
					    const struct dp_backend *asked)
{
	struct dp_address own = is_mapped(&asked->address) ? read_constant(&config.node_ipv4)
							   : read_constant(&config.node_ipv6);

	return is_source_allowed(frontend, &own);
}

static __always_inline bool is_connected(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	return sk && sk->state == BPF_TCP_ESTABLISHED;
}

static __always_inline void read4(struct bpf_sock_addr *ctx, struct dp_backend *place)
{
	map_ipv4(&place->address, ctx->user_ip4);
	place->port = ctx->user_port;
}

static __always_inline void write4(struct bpf_sock_addr *ctx, const struct dp_backend *place)
{
	ctx->user_ip4 = place->address.word[3];
	ctx->user_port = place->port;
}

static __always_inline void read6(struct bpf_sock_addr *ctx, struct dp_backend *place)
{
	place->address.word[0] = ctx->user_ip6[0];
	place->address.word[1] = ctx->user_ip6[1];
	place->address.word[2] = ctx->user_ip6[2];
	place->address.word[3] = ctx->user_ip6[3];
	place->port = ctx->user_port;
}

static __always_inline void write6(struct bpf_sock_addr *ctx, const struct dp_backend *place)
{
	ctx->user_ip6[0] = place->address.word[0];
	ctx->user_ip6[1] = place->address.word[1];
	ctx->user_ip6[2] = place->address.word[2];
	ctx->user_ip6[3] = place->address.word[3];
	ctx->user_port = place->port;
}

static __always_inline bool same_place(const struct dp_backend *a, const struct dp_backend *b)
{
	return a->port == b->port && same_address(&a->address, &b->address);
}

/* So that the address of `from` can be given for that of `to`. */
static __always_inline void note(struct bpf_sock_addr *ctx, enum dp_leg leg,
				 const struct dp_backend *from, const struct dp_backend *to,
				 __u32 list)
{
	struct dp_socket_key key = {
		.cookie = bpf_get_socket_cookie(ctx),
		.place = *from,
		.protocol = ctx->protocol,
		.leg = leg,
	};
	struct dp_socket value = {.place = *to, .list = list};

	bpf_map_update_elem(&sockets, &key, &value, BPF_ANY);
}

static __always_inline struct dp_socket *noted(struct bpf_sock_addr *ctx, enum dp_leg leg,
					       const struct dp_backend *from)
{
	struct dp_socket_key key = {
		.cookie = bpf_get_socket_cookie(ctx),
		.place = *from,
		.protocol = ctx->protocol,
		.leg = leg,
	};

	return bpf_map_lookup_elem(&sockets, &key);
}

static __always_inline bool choose(struct bpf_sock_addr *ctx, const struct dp_frontend *frontend,
				   struct dp_backend *backend)
{
	struct dp_affinity_key client = {.netns = bpf_get_netns_cookie(ctx)};

	return choose_inside(frontend, &client, backend);
}

/* What was asked for, and then where it goes. */
struct call {
	struct dp_backend place;
	bool translated;
};

/*
 * A socket connects. Precedence:
 * 1. neither TCP nor UDP: left alone
 * 2. UDP of a pod: left alone; from_pod translates each packet, so that another backend can take over
 * 3. no service has the address: left alone
 * 4. the service is for some sources only: a pod is left alone, for from_pod sees its address; this node may be refused
 * 5. nobody answers for the service: refused at once
 * 6. connects to the backend of its affinity, else to any
 */
static __always_inline int on_connect(struct bpf_sock_addr *ctx, struct call *call)
{
	struct dp_backend asked = call->place;
	struct dp_frontend *frontend;

	if (ctx->protocol != IPPROTO_TCP && ctx->protocol != IPPROTO_UDP)
		return PROCEED;
	if (ctx->protocol == IPPROTO_UDP && !is_of_node(ctx))
		return PROCEED;
	frontend = asked_frontend(ctx, &asked);
	if (!frontend)
		return PROCEED;
	if (frontend->flags & DP_FRONTEND_CHECK_SOURCE && !is_of_node(ctx))
		return PROCEED;
	if (!is_node_allowed(frontend, &asked))
		return refuse(DP_DROP_SOURCE_RANGE);
	if (!choose(ctx, frontend, &call->place))
		return refuse(DP_DROP_SOCKET_NO_BACKEND);
	note(ctx, DP_LEG_BACK, &call->place, &asked, frontend->list);
	call->translated = true;
	count(DP_PASS_SOCKET_SERVICE);
	return PROCEED;
}

/*
 * A UDP socket sends a datagram and says where to. Precedence:
 * 1. not UDP: left alone
 * 2. connected, and of a pod: left alone like its connect; the kernel does say where to for a socket of IPv6 that is
 *    connected to an IPv4 address
 * 3. no service has the address: left alone
 * 4. the service is for some sources only: as in connect
 * 5. nobody answers for the service: refused at once
 * 6. goes to the backend of the datagram before, as long as that one may be kept
 * 7. goes to the backend of its affinity, else to any
 */
static __always_inline int on_sendmsg(struct bpf_sock_addr *ctx, struct call *call)
{
	struct dp_backend asked = call->place;
	struct dp_frontend *frontend;
	struct dp_socket *before, *back;

	if (ctx->protocol != IPPROTO_UDP)
		return PROCEED;
	if (is_connected(ctx) && !is_of_node(ctx))
		return PROCEED;
	frontend = asked_frontend(ctx, &asked);
	if (!frontend)
		return PROCEED;
	if (frontend->flags & DP_FRONTEND_CHECK_SOURCE && !is_of_node(ctx))
		return PROCEED;
	if (!is_node_allowed(frontend, &asked))
		return refuse(DP_DROP_SOURCE_RANGE);
	before = noted(ctx, DP_LEG_FORWARD, &asked);
	if (frontend->inside_count && before && is_member(frontend->list, &before->place)) {
		call->place = before->place;
	} else {
		if (!choose(ctx, frontend, &call->place))
			return refuse(DP_DROP_SOCKET_NO_BACKEND);
		note(ctx, DP_LEG_FORWARD, &asked, &call->place, frontend->list);
	}
	/* Each leg may be evicted without the other, and two services may lead to one backend: the last one counts. */
	back = noted(ctx, DP_LEG_BACK, &call->place);
	if (!back || !same_place(&back->place, &asked))
		note(ctx, DP_LEG_BACK, &call->place, &asked, frontend->list);
	call->translated = true;
	count(DP_PASS_SOCKET_SERVICE);
	return PROCEED;
}

/* A datagram came in, or the caller asks whom it is connected to: who is a backend is shown as the service. */
static __always_inline void show(struct bpf_sock_addr *ctx, struct call *call)
{
	struct dp_socket *asked = noted(ctx, DP_LEG_BACK, &call->place);

	if (!asked)
		return;
	call->place = asked->place;
	call->translated = true;
}

static __always_inline int on_recvmsg(struct bpf_sock_addr *ctx, struct call *call)
{
	show(ctx, call);
	if (call->translated)
		count(DP_PASS_SOCKET_REPLY);
	return PROCEED;
}

static __always_inline int on_getpeername(struct bpf_sock_addr *ctx, struct call *call)
{
	show(ctx, call);
	return PROCEED;
}

#define SOCKET_PROGRAM(name, family)                       \
	SEC("cgroup/" #name #family)                       \
	int sock_##name##family(struct bpf_sock_addr *ctx) \
	{                                                  \
		struct call call = {};                     \
		int result;                                \
                                                           \
		read##family(ctx, &call.place);            \
		result = on_##name(ctx, &call);            \
		if (call.translated)                       \
			write##family(ctx, &call.place);   \
		return result;                             \
	}

SOCKET_PROGRAM(connect, 4)
SOCKET_PROGRAM(connect, 6)
SOCKET_PROGRAM(sendmsg, 4)
SOCKET_PROGRAM(sendmsg, 6)
SOCKET_PROGRAM(recvmsg, 4)
SOCKET_PROGRAM(recvmsg, 6)
SOCKET_PROGRAM(getpeername, 4)
SOCKET_PROGRAM(getpeername, 6)

char LICENSE[] SEC("license") = "Apache-2.0";
