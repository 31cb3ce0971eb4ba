"""`fastrnn bench`: the same cases for fastrnn and its peers, measured side by side.

From a case to its row in the table:

    cases       what is measured: suites, shapes, FLOPs
    data        weights and inputs of a case, the same in every process
    reference   the truth, in float64 NumPy; `parity` compares with it
    contenders  one small file each: fastrnn, torch, onnxruntime, numpy
    worker      the process that a contender lives in; `process` is its other end
    timing      who is timed when, and the statistics
    probes      what this machine can do at most; `roofline` says what that means for a case
    run         all of the above, case by case
    results     the rows, and the JSON that they become; `report` is the table

`docs/benchmarking.md` says why it is done so.
"""
