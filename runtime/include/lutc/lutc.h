/* The C interface of the lutc runtime: load a .lut, run it. lutc.hpp wraps it for C++.
 *
 *     lutc_session* s = NULL;
 *     if (lutc_open("model.lut", NULL, &s) != LUTC_OK) { puts(lutc_last_error()); return 1; }
 *     lutc_tensor x = {LUTC_F32, 2, {1, 784}, pixels};
 *     lutc_tensor y = {0};
 *     lutc_infer(s, &x, 1, &y, 1);                    // fills in y's dtype and shape
 *     y.data = malloc(lutc_tensor_bytes(&y));
 *     lutc_run(s, &x, 1, &y, 1);
 *     lutc_close(s);
 *
 * Nothing throws or aborts; every call may be made from any thread, and several threads may run one session at once. */
#ifndef LUTC_LUTC_H_
#define LUTC_LUTC_H_

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define LUTC_API __attribute__((visibility("default")))
#else
#define LUTC_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define LUTC_MAX_RANK 8

typedef enum lutc_status {
  LUTC_OK = 0,
  LUTC_INVALID_ARGUMENT = 1, /* the caller's input: wrong name, dtype, rank or size */
  LUTC_CORRUPT = 2,          /* not a .lut, truncated or damaged */
  LUTC_VERSION = 3,          /* written by a newer format version */
  LUTC_UNSUPPORTED = 4,      /* an operator or ISA this runtime or CPU does not execute */
  LUTC_OUT_OF_MEMORY = 5,
  LUTC_IO = 6,
  LUTC_INTERNAL = 7 /* a defect of this library: please report */
} lutc_status;

typedef enum lutc_dtype {
  LUTC_F32 = 0,
  LUTC_F64 = 1,
  LUTC_I64 = 2,
  LUTC_I32 = 3,
  LUTC_I8 = 4,
  LUTC_U8 = 5,
  LUTC_BOOL = 6
} lutc_dtype;

/* A dense row-major tensor in the caller's memory, aligned to its element size. */
typedef struct lutc_tensor {
  int32_t dtype; /* lutc_dtype */
  int32_t rank;
  int64_t dims[LUTC_MAX_RANK];
  void* data;
} lutc_tensor;

/* An input or output of a model. Pointers live as long as the session. */
typedef struct lutc_port {
  const char* name;
  int32_t dtype;
  int32_t rank;
  int64_t dims[LUTC_MAX_RANK];        /* -1: symbolic */
  const char* symbols[LUTC_MAX_RANK]; /* its name; the same name is the same size within one run. NULL where the size is
                                         fixed */
} lutc_port;

/* Zero-initialise it and set what you need. */
typedef struct lutc_options {
  int32_t threads;       /* 0: every CPU granted to the process, which is also the most */
  const char* isa;       /* "scalar", "avx2", "avx512"; NULL: the variable LUTC_ISA, else the best this CPU has */
  uint64_t memory_limit; /* bytes for intermediate results and outputs of a run; 0: the memory granted to the process */
  int32_t copy_file;     /* 1: read the file into private memory instead of mapping it */
} lutc_options;

typedef struct lutc_session lutc_session;

/* options may be NULL. *session is set only on LUTC_OK. */
LUTC_API lutc_status lutc_open(const char* path, const lutc_options* options, lutc_session** session);
/* As lutc_open, from a .lut in memory, which is copied. */
LUTC_API lutc_status lutc_open_memory(const void* data, size_t bytes, const lutc_options* options,
                                      lutc_session** session);
LUTC_API void lutc_close(lutc_session* session);

LUTC_API int32_t lutc_num_inputs(const lutc_session* session);
LUTC_API int32_t lutc_num_outputs(const lutc_session* session);
LUTC_API lutc_status lutc_input(const lutc_session* session, int32_t index, lutc_port* port);
LUTC_API lutc_status lutc_output(const lutc_session* session, int32_t index, lutc_port* port);

/* Dtypes and shapes of all outputs for inputs of these dtypes and shapes (their data is not read); outputs[i].data is
 * left alone. The counts must be lutc_num_inputs() and lutc_num_outputs(), the order theirs. */
LUTC_API lutc_status lutc_infer(lutc_session* session, const lutc_tensor* inputs, int32_t num_inputs,
                                lutc_tensor* outputs, int32_t num_outputs);
/* Runs. outputs[i].data is memory for the whole output, lutc_tensor_bytes() of what lutc_infer() told, or NULL where it
 * is not wanted; dtype and shape of the outputs are filled in. */
LUTC_API lutc_status lutc_run(lutc_session* session, const lutc_tensor* inputs, int32_t num_inputs,
                              lutc_tensor* outputs, int32_t num_outputs);

/* 0 if the dtype, rank or a dim is invalid. */
LUTC_API size_t lutc_tensor_bytes(const lutc_tensor* tensor);
/* Message of this thread's last failed call; valid until its next. */
LUTC_API const char* lutc_last_error(void);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* LUTC_LUTC_H_ */
