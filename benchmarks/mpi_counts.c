/* What a process sends, counted where every library ends up: at MPI's profiling interface.

   Preloaded, it sees the calls of PETSc, DOLFINx, mpi4py and all others alike. Communicators of one
   rank are left out, and so are messages to nobody. */

#include <mpi.h>
#include <stdlib.h>

enum { MESSAGES, BYTES, REDUCTIONS, COLLECTIVES, KINDS };

long long fpcontrol_mpi_counts[KINDS];

static long long *const counts = fpcontrol_mpi_counts;

static long long size_of(long long n, MPI_Datatype type)
{
  MPI_Count size;

  PMPI_Type_size_x(type, &size);
  return n * size;
}

static void sent(long long bytes, int to)
{
  if (to == MPI_PROC_NULL) return;
  counts[MESSAGES]++;
  counts[BYTES] += bytes;
}

static void together(int kind, MPI_Comm comm)
{
  int size;

  PMPI_Comm_size(comm, &size);
  counts[kind] += size > 1;
}

/* Persistent sends, which count when they start. */
struct persistent {
  MPI_Request request;
  long long   bytes;
  int         to;
  struct persistent *next;
};

static struct persistent *known;

static void keep(MPI_Request request, long long bytes, int to)
{
  struct persistent *p = malloc(sizeof *p);

  *p    = (struct persistent){request, bytes, to, known};
  known = p;
}

static void start(MPI_Request request)
{
  for (struct persistent *p = known; p; p = p->next)
    if (p->request == request) {
      sent(p->bytes, p->to);
      return;
    }
}

int MPI_Start(MPI_Request *request)
{
  start(*request);
  return PMPI_Start(request);
}

int MPI_Startall(int n, MPI_Request requests[])
{
  for (int i = 0; i < n; i++) start(requests[i]);
  return PMPI_Startall(n, requests);
}

int MPI_Request_free(MPI_Request *request)
{
  for (struct persistent **p = &known; *p; p = &(*p)->next)
    if ((*p)->request == *request) {
      struct persistent *gone = *p;

      *p = gone->next;
      free(gone);
      break;
    }
  return PMPI_Request_free(request);
}

/* Every call twice: with int and, since MPI 4, with MPI_Count (suffix _c), which mpi4py uses. */
#define ARGS(T) const void *b, T n, MPI_Datatype t, int to, int tag, MPI_Comm comm
#define SEND(NAME, T) \
  int MPI_##NAME(ARGS(T)) { sent(size_of(n, t), to); return PMPI_##NAME(b, n, t, to, tag, comm); }
#define ISEND(NAME, T) \
  int MPI_##NAME(ARGS(T), MPI_Request *r) \
  { sent(size_of(n, t), to); return PMPI_##NAME(b, n, t, to, tag, comm, r); }
#define INIT(NAME, T) \
  int MPI_##NAME(ARGS(T), MPI_Request *r) \
  { \
    int code = PMPI_##NAME(b, n, t, to, tag, comm, r); \
    keep(*r, size_of(n, t), to); \
    return code; \
  }
#define SENDRECV(NAME, T) \
  int MPI_##NAME(const void *b, T n, MPI_Datatype t, int to, int tag, void *rb, T rn, \
                 MPI_Datatype rt, int from, int rtag, MPI_Comm comm, MPI_Status *s) \
  { \
    sent(size_of(n, t), to); \
    return PMPI_##NAME(b, n, t, to, tag, rb, rn, rt, from, rtag, comm, s); \
  }
#define ALLREDUCE(NAME, T) \
  int MPI_##NAME(const void *b, void *r, T n, MPI_Datatype t, MPI_Op op, MPI_Comm comm) \
  { together(REDUCTIONS, comm); return PMPI_##NAME(b, r, n, t, op, comm); }
#define IALLREDUCE(NAME, T) \
  int MPI_##NAME(const void *b, void *r, T n, MPI_Datatype t, MPI_Op op, MPI_Comm comm, \
                 MPI_Request *q) \
  { together(REDUCTIONS, comm); return PMPI_##NAME(b, r, n, t, op, comm, q); }
#define REDUCE(NAME, T) \
  int MPI_##NAME(const void *b, void *r, T n, MPI_Datatype t, MPI_Op op, int root, MPI_Comm comm) \
  { together(REDUCTIONS, comm); return PMPI_##NAME(b, r, n, t, op, root, comm); }
#define BCAST(NAME, T) \
  int MPI_##NAME(void *b, T n, MPI_Datatype t, int root, MPI_Comm comm) \
  { together(COLLECTIVES, comm); return PMPI_##NAME(b, n, t, root, comm); }
#define ALLGATHER(NAME, T) \
  int MPI_##NAME(const void *b, T n, MPI_Datatype t, void *r, T m, MPI_Datatype rt, MPI_Comm comm) \
  { together(COLLECTIVES, comm); return PMPI_##NAME(b, n, t, r, m, rt, comm); }
#define ALLGATHERV(NAME, T, D) \
  int MPI_##NAME(const void *b, T n, MPI_Datatype t, void *r, const T m[], const D d[], \
                 MPI_Datatype rt, MPI_Comm comm) \
  { together(COLLECTIVES, comm); return PMPI_##NAME(b, n, t, r, m, d, rt, comm); }
#if MPI_VERSION >= 4
  #define BOTH(KIND, NAME) KIND(NAME, int) KIND(NAME##_c, MPI_Count)
#else
  #define BOTH(KIND, NAME) KIND(NAME, int)
#endif

BOTH(SEND, Send)
BOTH(SEND, Ssend)
BOTH(SEND, Rsend)
BOTH(ISEND, Isend)
BOTH(ISEND, Issend)
BOTH(ISEND, Irsend)
BOTH(INIT, Send_init)
BOTH(INIT, Ssend_init)
BOTH(INIT, Rsend_init)
BOTH(SENDRECV, Sendrecv)
BOTH(ALLREDUCE, Allreduce)
BOTH(ALLREDUCE, Scan)
BOTH(ALLREDUCE, Exscan)
BOTH(IALLREDUCE, Iallreduce)
BOTH(REDUCE, Reduce)
BOTH(BCAST, Bcast)
BOTH(ALLGATHER, Allgather)
BOTH(ALLGATHER, Alltoall)
ALLGATHERV(Allgatherv, int, int)
#if MPI_VERSION >= 4
ALLGATHERV(Allgatherv_c, MPI_Count, MPI_Aint)
#endif

int MPI_Barrier(MPI_Comm comm)
{
  together(COLLECTIVES, comm);
  return PMPI_Barrier(comm);
}

int MPI_Ibarrier(MPI_Comm comm, MPI_Request *r)
{
  together(COLLECTIVES, comm);
  return PMPI_Ibarrier(comm, r);
}

/* DOLFINx sends to its neighbors in one call: a message to each that gets anything. */
static void to_neighbors(const int n[], MPI_Datatype type, MPI_Comm comm)
{
  int in, out, weighted;

  PMPI_Dist_graph_neighbors_count(comm, &in, &out, &weighted);
  for (int i = 0; i < out; i++)
    if (n[i]) sent(size_of(n[i], type), 0);
}

int MPI_Neighbor_alltoallv(const void *b, const int n[], const int d[], MPI_Datatype t, void *r,
                           const int m[], const int rd[], MPI_Datatype rt, MPI_Comm comm)
{
  to_neighbors(n, t, comm);
  return PMPI_Neighbor_alltoallv(b, n, d, t, r, m, rd, rt, comm);
}

int MPI_Ineighbor_alltoallv(const void *b, const int n[], const int d[], MPI_Datatype t, void *r,
                            const int m[], const int rd[], MPI_Datatype rt, MPI_Comm comm,
                            MPI_Request *q)
{
  to_neighbors(n, t, comm);
  return PMPI_Ineighbor_alltoallv(b, n, d, t, r, m, rd, rt, comm, q);
}
