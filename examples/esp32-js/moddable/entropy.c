// The chip's own random source. With the radio off it is a plain generator: start Wi-Fi first, or enable the bootloader's source.
#include "xsmc.h"
#include "esp_random.h"

void xs_entropy(xsMachine *the)
{
	xsIntegerValue length = xsmcToInteger(xsArg(0));
	if (length < 1 || length > 1024)
		xsRangeError("length");
	xsmcSetArrayBuffer(xsResult, NULL, length);
	esp_fill_random(xsmcToArrayBuffer(xsResult), length);
}
