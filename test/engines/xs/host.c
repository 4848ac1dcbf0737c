// A small machine for XS on a desktop: it runs scripts in a heap that grows by the handful, lends them whatever the process at its standard
// input and output lends, and tells with every call what the scripts have used so far. Nothing else of an operating system is within their
// reach. Compiled for 32 bits, so that slots and chunks are as large as on a microcontroller.
//
//   host HEAP FILE…     HEAP: bytes of slots and chunks that the scripts may take beyond what `loaded()` found; 0: no limit.
//                       -1: no limit, and garbage is collected before every allocation, so that what is told is what was alive (slow)
//
// Two functions are global:
//   loaded()                     collects garbage; what lives now is the baseline of all that is told afterwards
//   lend(name, text, bytes…)     asks; null or an ArrayBuffer
// A question is a line of `name text meter heap peak stack length…`, tab-separated, and the bytes; its answer is a line with a length, −1 for
// null, and the bytes. heap: bytes beyond the baseline; peak: the most since the question before; stack: the deepest since then, in slots.

#include "xsAll.h"
#include "xsScript.h"

extern txInteger _xsmcGetBuffer(txMachine* the, txSlot* slot, void** data, txUnsigned* count, txBoolean writable);

// An address range for chunks, taken page by page; XS grows its one block as long as the next bytes are the next bytes.
#define CHUNKS_MAX (64 * 1024 * 1024)
// What a growth takes: little, so that what is reserved is what was needed.
#define SLOTS_STEP 32
#define CHUNKS_STEP 256
#define ANSWER_MAX (1024 * 1024)

static txSize heapMax = 0;
static txSize baseline = -1;
static txSlot* stackBase;
extern int gxStress;

static txSize reserved(txMachine* the)
{
	return the->maximumHeapCount * sizeof(txSlot) + the->maximumChunksSize;
}

static txSize live(txMachine* the)
{
	return the->currentHeapCount * sizeof(txSlot) + the->currentChunksSize;
}

static void resetPeaks(txMachine* the)
{
	the->peakHeapCount = the->currentHeapCount;
	the->peakChunksSize = the->currentChunksSize;
	the->stackPeak = the->stack;
}

static int tooMuch(txMachine* the, txSize more)
{
	return heapMax > 0 && baseline >= 0 && reserved(the) + more > baseline + heapMax;
}

void fxAbort(txMachine* the, int status)
{
	fprintf(stderr, "XS ended: %s\n",
		status == XS_NOT_ENOUGH_MEMORY_EXIT ? "not enough memory" :
		status == XS_STACK_OVERFLOW_EXIT ? "stack overflow" :
		status == XS_NO_MORE_KEYS_EXIT ? "no more keys" : "an exception that nobody caught");
	exit(10 + status);
}

void* fxAllocateChunks(txMachine* the, txSize size)
{
	static txByte* range = NULL;
	static txSize used = 0;
	if (!range) {
		range = mmap(NULL, CHUNKS_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON | MAP_NORESERVE, -1, 0);
		if (range == MAP_FAILED)
			fxAbort(the, XS_NOT_ENOUGH_MEMORY_EXIT);
	}
	if (tooMuch(the, size) || size > CHUNKS_MAX - used)
		return NULL;
	used += size;
	return range + used - size;
}

void fxFreeChunks(txMachine* the, void* chunks)
{
}

txSlot* fxAllocateSlots(txMachine* the, txSize count)
{
	return tooMuch(the, count * sizeof(txSlot)) ? NULL : malloc(count * sizeof(txSlot));
}

void fxFreeSlots(txMachine* the, void* slots)
{
	free(slots);
}

void fxCreateMachinePlatform(txMachine* the)
{
}

void fxDeleteMachinePlatform(txMachine* the)
{
}

// The device subset knows neither promises nor modules.
void fxQueuePromiseJobs(txMachine* the)
{
	fxAbort(the, XS_UNHANDLED_EXCEPTION_EXIT);
}

txID fxFindModule(txMachine* the, txSlot* realm, txID moduleID, txSlot* slot)
{
	return XS_NO_ID;
}

void fxLoadModule(txMachine* the, txSlot* module, txID moduleID)
{
}

static void loaded(txMachine* the)
{
	fxCollectGarbage(the);
	baseline = live(the);
	stackBase = the->stack;
	gxStress = heapMax < 0;
	resetPeaks(the);
}

static void lend(txMachine* the)
{
	char line[32];
	txInteger i, length;
	void* data;
	txUnsigned count;
	txSize peak = the->peakHeapCount * sizeof(txSlot) + the->peakChunksSize;
	if (gxStress)
		fxCollectGarbage(the);
	printf("%s\t", fxToString(the, mxArgv(0)));
	printf("%s\t%u\t%d\t%d\t%d", fxToString(the, mxArgv(1)), the->meterIndex, live(the) - baseline, peak - baseline,
		(int)(stackBase - the->stackPeak));
	for (i = 2; i < mxArgc; i++) {
		_xsmcGetBuffer(the, mxArgv(i), &data, &count, 0);
		printf("\t%u", count);
	}
	putchar('\n');
	for (i = 2; i < mxArgc; i++) {
		_xsmcGetBuffer(the, mxArgv(i), &data, &count, 0);
		fwrite(data, 1, count, stdout);
	}
	fflush(stdout);
	resetPeaks(the);
	if (!fgets(line, sizeof(line), stdin))
		exit(0);
	length = atoi(line);
	if (length > ANSWER_MAX)
		fxAbort(the, XS_NOT_ENOUGH_MEMORY_EXIT);
	if (length < 0)
		mxResult->kind = XS_NULL_KIND;
	else {
		data = fxArrayBuffer(the, mxResult, NULL, length, -1);
		if (length && fread(data, length, 1, stdin) != 1)
			exit(0);
	}
}

static void define(txMachine* the, txString name, txCallback callback, txInteger length)
{
	fxNewHostFunction(the, callback, length, XS_NO_ID, XS_NO_ID);
	mxPush(mxGlobal);
	mxSetID(fxNewNameC(the, name));
	mxPop();
}

static int run(txMachine* the, char* path)
{
	txScript* script;
	FILE* file = fopen(path, "r");
	if (!file) {
		perror(path);
		return 1;
	}
	script = fxParseScript(the, file, (txGetter)fgetc, mxProgramFlag);
	fclose(file);
	// Throws what the parser found.
	fxRunScript(the, script, &mxGlobal, C_NULL, C_NULL, C_NULL, mxProgram.value.reference);
	mxPop();
	return 0;
}

int main(int count, char* values[])
{
	txCreation creation = {
		CHUNKS_STEP, CHUNKS_STEP,
		SLOTS_STEP, SLOTS_STEP,
		1024,						// stack, in slots
		2048, 256,					// keys
		127, 127,					// name and symbol tables
		256 * 1024, 1993,			// parser, which a device leaves at home
	};
	int i, wrong = 0;
	txMachine* the;
	if (count < 3) {
		fputs("host HEAP FILE...\n", stderr);
		return 2;
	}
	fxInitializeSharedCluster();
	the = fxCreateMachine(&creation, "xs", NULL, XS_NO_ID);
	the = fxBeginHost(the);
	{
		mxTry(the) {
			define(the, "loaded", loaded, 0);
			define(the, "lend", lend, 5);
			heapMax = atoi(values[1]);
			for (i = 2; i < count && !wrong; i++)
				wrong = run(the, values[i]);
		}
		mxCatch(the) {
			fprintf(stderr, "%s\n", fxToString(the, &mxException));
			wrong = 1;
		}
	}
	fxEndHost(the);
	return wrong;
}
