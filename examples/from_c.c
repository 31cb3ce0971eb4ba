/* Text in, text out: steps of an exported model, without Python.

   Reads numbers from standard input, takes two at a time as x of a step, writes y. */

#include <stdio.h>
#include <stdlib.h>

#include "voice.h"

int main(void) {
    float x[VOICE_INPUT_SIZE], y[VOICE_OUTPUT_SIZE];
    void *state = malloc(voice_state_size());
    if (state == NULL || voice_reset(state) != 0) return 1;
    for (;;) {
        for (int i = 0; i < VOICE_INPUT_SIZE; i++)
            if (scanf("%f", &x[i]) != 1) {
                free(state);
                return 0;
            }
        if (voice_step(state, x, y) != 0) return 1;
        for (int o = 0; o < VOICE_OUTPUT_SIZE; o++)
            printf("%.9g%c", y[o], o + 1 < VOICE_OUTPUT_SIZE ? ' ' : '\n');
    }
}
