/*
 * Does this libclang work for bindgen?  Usage: libclang-probe LIBRARY [CLANG-ARGUMENT]...
 *
 * Loads the library, parses a file that includes <stdbool.h>, <stddef.h>, <stdint.h> and
 * <stdlib.h>, and looks at what the parser had to say.  A library without its resource headers
 * loads well and fails here, which is what bindgen would find out minutes later.
 *
 * Exit status: 0 it works, 1 it loads but doesn't parse, 2 it doesn't load.  A line on stderr
 * says why.
 *
 * The few declarations of libclang's C interface that are used are written out, because its header
 * is exactly what a machine may lack.  They are from clang-c/Index.h and part of its stable ABI.
 */
#include <dlfcn.h>
#include <stdio.h>

struct unsaved_file {
    const char *name;
    const char *contents;
    unsigned long length;
};

typedef void *(*create_index_fn)(int, int);
typedef void *(*parse_fn)(void *, const char *, const char *const *, int, struct unsaved_file *,
                          unsigned, unsigned);
typedef unsigned (*count_fn)(void *);
typedef void *(*get_fn)(void *, unsigned);
typedef int (*severity_fn)(void *);

/* CXDiagnostic_Error of clang-c/Index.h; CXDiagnostic_Fatal is the one above it. */
#define SEVERITY_ERROR 3

static const char source[] = "#include <stdbool.h>\n"
                             "#include <stddef.h>\n"
                             "#include <stdint.h>\n"
                             "#include <stdlib.h>\n"
                             "bool probe(uint64_t address, size_t length);\n";

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: libclang-probe LIBRARY [CLANG-ARGUMENT]...\n");
        return 2;
    }
    void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        return 2;
    }
    create_index_fn create_index = (create_index_fn)dlsym(library, "clang_createIndex");
    parse_fn parse = (parse_fn)dlsym(library, "clang_parseTranslationUnit");
    count_fn count = (count_fn)dlsym(library, "clang_getNumDiagnostics");
    get_fn get = (get_fn)dlsym(library, "clang_getDiagnostic");
    severity_fn severity = (severity_fn)dlsym(library, "clang_getDiagnosticSeverity");
    if (!create_index || !parse || !count || !get || !severity) {
        fprintf(stderr, "%s: not libclang: it lacks functions of clang-c/Index.h\n", argv[1]);
        return 2;
    }

    struct unsaved_file file = {"probe.c", source, sizeof(source) - 1};
    void *index = create_index(0, 0);
    void *unit = index ? parse(index, "probe.c", (const char *const *)(argv + 2), argc - 2, &file,
                               1, 0)
                       : NULL;
    if (!unit) {
        fprintf(stderr, "%s: parses nothing\n", argv[1]);
        return 1;
    }
    for (unsigned i = 0; i < count(unit); i++) {
        if (severity(get(unit, i)) >= SEVERITY_ERROR) {
            fprintf(stderr, "%s: finds no stdbool.h, stddef.h, stdint.h or stdlib.h\n", argv[1]);
            return 1;
        }
    }
    return 0;
}
