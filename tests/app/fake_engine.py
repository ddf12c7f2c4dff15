"""A stand-in for the engine: does what its first argument names. Standard library only: it starts fast."""

import json
import os
import signal
import struct
import sys
import time
from pathlib import Path

JOB = "20250101-000000-000000"


def say(event: str, **fields: object) -> None:
    raw(json.dumps({"event": event, **fields}).encode() + b"\n")


def raw(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def hello(protocol: int = 3, **more: object) -> None:
    say("hello", protocol=protocol, version="0", devices=["cpu"], pid=os.getpid(), **more)


def begin_job(job: str = JOB) -> None:
    say("job", job=job, folder="/jobs/1", output="/out.gguf", log="/jobs/1/engine.log")


def progress(done: int) -> None:
    item = f"blk.{done}.ffn_down"
    say("progress", stage="quantize", done=done, total=32, unit="blocks", item=item)


def read() -> dict:
    """The next request; ends the process where there is none."""
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    return json.loads(line)


def forever() -> None:
    while True:
        time.sleep(1)


# ------------------------------------------------------------------------------------ ways to behave


def idle() -> None:
    """Says hello, reads until its stdin closes."""
    hello()
    while True:
        read()


def echo() -> None:
    """Answers each line by a warning of the same text."""
    hello()
    while True:
        say("warning", message=json.dumps(read()))


def stubborn() -> None:
    """Deaf to everything but SIGKILL."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hello()
    forever()


def mute() -> None:
    forever()


def old() -> None:
    hello(protocol=0)
    forever()


def new() -> None:
    """Of a later version: its hello says more."""
    hello(protocol=99, mood="good")
    forever()


def broken() -> None:
    sys.exit("ModuleNotFoundError: No module named 'engine'")


def closes_stdout() -> None:
    hello()
    os.close(1)
    forever()


def closes_stdin() -> None:
    hello()
    os.close(0)
    say("warning", message="closed")
    forever()


def segfault() -> None:
    import faulthandler

    faulthandler.enable()
    hello()
    faulthandler._sigsegv()


def chatter() -> None:
    """More on stderr than is kept."""
    for number in range(5000):
        print(f"{number:06} {'x' * 40}", file=sys.stderr)
    hello()


def flood() -> None:
    hello()
    fields = {"event": "progress", "stage": "s", "total": 20_000, "unit": "u", "item": ""}
    raw(b"".join(json.dumps(fields | {"done": i}).encode() + b"\n" for i in range(20_000)))


def endless() -> None:
    hello()
    while True:
        raw(b"x" * (1 << 20))


def garbage() -> None:
    hello()
    raw(b"\x00\xff\xfe binary\n")
    raw(b"a library prints this\n")
    raw(b'{"event": "heartb')
    time.sleep(0.01)
    raw(b'eat", "memory": 1, "peak": 2}\n')
    raw(b"{not json}\n\n[1, 2]\n")
    raw(b'{"event": "heartbeat"}\n{"event": "unheard of"}\n')
    raw(b"[" * 100_000 + b"\n")
    progress(3)
    raw(b"half a li")


# -------------------------------------------------------------------------------------------- a job


def job(end: str = "done") -> None:
    """Reads its request, works a little, ends as `end` says.

    "by name": as the folder of the output is called, "done" for one that is resumed; each has its own id.
    """
    request = read()
    hello()
    new = JOB
    if end == "by name":
        end = Path(request["quantize"]["output"]).parent.name if "quantize" in request else "done"
        new = f"{JOB}-{os.getpid()}"
    if request["request"] == "activations":
        gather_activations(request["activations"])
        return
    if "calibrate" in request or end == "calibrated":
        calibrate(request)
        return
    if end == "refused":
        say("error", code="user", message="The disk is full.", hint="Make room.")
        sys.exit(2)
    if end == "waits":  # for a cancel, before it has a folder
        read()
        say("stopped")
        sys.exit(0)
    if end == "changed" and not request.get("restart"):
        say("error", code="changed", message="The source is another one now.")
        sys.exit(2)
    job = f"{JOB}-again" if request.get("restart") else request.get("job", new)
    begin_job(job)
    say("warning", message=f"limit {request.get('memory_limit')}")
    say("heartbeat", memory=1, peak=900_000_000_000)
    say("stage", stage="quantize")
    say("warning", message="careful")
    for done in range(18):
        say("saved", saved={"done": done, "total": 32, "unit": "blocks"})
        progress(done)
    if end == "defect":
        say("error", code="defect", message="ValueError: x", traceback="Traceback: x")
        sys.exit(1)
    if end == "memory":
        say("error", code="memory", message="The memory ran out.")
        sys.exit(2)
    if end == "stopped":
        while read()["request"] != "cancel":
            pass
        say("stopped", job=job)
        sys.exit(0)
    if end == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if end == "works":
        forever()
    result = {"kind": "quantize", "job": job, "output": "/out.gguf", "bytes": 10, "predicted_bytes": 10}
    result |= {"bpw": 4.5, "seconds": 1.0, "peak_private_bytes": 5, "warnings": ["careful", "small"]}
    say("done", result=result | {"source_bytes": 40, "source_bpw": 16.0})
    if end == "lingers":
        stubborn()


def calibrate(request: dict) -> None:
    """Makes a matrix in no time, unless its name says that it fails: then a resumed one does."""
    if "calibrate" not in request:
        calibrated("/matrix/refused.gguf")
        return
    output = request["calibrate"]["output"]
    begin_job()
    say("progress", stage="calibrate", done=1, total=8, unit="passes", item="block 1 of 4")
    say("saved", saved={"done": 1, "total": 4, "unit": "blocks"})
    if "refused" in output:
        say("error", code="user", message="The disk is full.", hint="Make room.")
        sys.exit(2)
    calibrated(output)


def gather_activations(asked: dict) -> None:
    """A file beside the model, unless the prompt says that it fails, or waits for a cancel."""
    begin_job()
    say("progress", stage="gather", done=1, total=4, unit="blocks", item="block 1 of 4", share=0.25)
    if asked["prompt"] == "refuse":
        say("error", code="user", message="The model cannot be run.")
        sys.exit(2)
    if asked["prompt"] == "wait":
        while read()["request"] != "cancel":
            pass
        say("stopped", job=JOB)
        sys.exit(0)
    path = Path(asked["model"]) / "activations.safetensors"
    path.write_bytes(b"")
    ran = {"model": asked["model"], "files": asked["texts"] or ["sample.txt"], "prompt": asked["prompt"]}
    ran |= {"windows": 1, "windows_there": 1, "length": 9, "seed": 0}
    result = {"kind": "activations", "job": JOB, "output": str(path), "bytes": 10, "layers": 3, "ran": ran}
    say("done", result=result | {"seconds": 1.0, "peak_private_bytes": 5, "warnings": []})


def calibrated(output: str) -> None:
    result = {"kind": "calibrate", "job": JOB, "output": output, "bytes": 10, "tensors": 3, "windows": 2}
    result |= {"tokens": 1024, "unseen": [], "seconds": 1.0, "peak_private_bytes": 5, "warnings": ["few"]}
    say("done", result=result)


# ------------------------------------------------------------------------------------- an inspection


def inspect() -> None:
    """Answers questions. Models: /good, /unexportable, /missing, /deadly, /late (with the next request).

    What ends in .dat is an importance matrix.
    """
    hello()
    late = None
    while True:
        asked = read()
        if asked.get("model") == "/late":
            late = asked["id"]
            continue
        if late is not None:
            answer_open(late, "/good")
            late = None
        ANSWERS[asked["request"]](asked)
        while LATE and asked is not LATE[-1]:
            waited = LATE.pop(0)
            waited["view"] = json.loads(json.dumps(waited["view"]).replace("late", "old"))
            answer_figure(waited)


def answer_open(number: int, model: str) -> None:
    if model.endswith(".dat"):
        say("importance_found", id=number)
        return
    if model == "/missing":
        say("error", code="user", message="There is no model.", id=number)
        return
    summary = {"path": model, "kind": "huggingface", "architecture": "llama", "parameters": 10, "bytes": 20}
    summary |= {"blocks": 3, "tied_embeddings": False, "quantization": None, "others": {}, "notes": []}
    say("model", id=number, summary=summary | {"tensors": []})
    say("tensors", id=number, tensors=[tensor(0), tensor(1)], last=False)
    say("tensors", id=number, tensors=[tensor(2)], last=True)
    if model == "/unexportable":
        say("error", code="user", message="Nothing can write it.", id=number)
        return
    if model == "/deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    export = {"facts": {"architecture": "llama", "blocks": 3}, "header_bytes": 64, "alignment": 32}
    say("export", id=number, export=export | {"notes": [], "tensors": []})
    say("export_tensors", id=number, tensors=[exported(0), exported(1)], last=False)
    say("export_tensors", id=number, tensors=[exported(2)], last=True)


def tensor(block: int) -> dict:
    name = f"model.layers.{block}.mlp.down_proj.weight"
    return {"name": name, "shape": [32, 256], "dtype": "F16", "role": "down", "block": block, "bytes": 16384}


def exported(block: int) -> dict:
    sources = [tensor(block)["name"]]
    name = f"blk.{block}.ffn_down.weight"
    return {"name": name, "shape": [32, 256], "role": "down", "block": block, "sources": sources}


def answer_check(asked: dict) -> None:
    """By the output's name: "/die" dies, "/refuse" refuses, everything else passes."""
    output = asked["quantize"]["output"]
    if output == "/die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if output == "/hang":
        os.kill(os.getpid(), signal.SIGSTOP)
    if output == "/refuse":
        say("error", code="user", message="There is no folder.", hint="Make it.", id=asked["id"])
    else:
        check = {"name": "disk", "passed": True, "message": output}
        say("checks", id=asked["id"], checks=[check])


def answer_jobs(asked: dict) -> None:
    """Two on two pages, less those that it was asked to remove."""
    one = {"id": JOB, "kind": "quantize", "state": "interrupted", "output": "/out.gguf", "created": "2025"}
    one |= {"saved": {"done": 3, "total": 7, "unit": "blocks"}, "message": "stopped", "folder": "/jobs/1"}
    REMOVED.update(asked.get("jobs", ()))
    for name, last in ((JOB, False), (f"{JOB}-2", True)):
        say("jobs", id=asked["id"], jobs=[one | {"id": name}] if name not in REMOVED else [], last=last)


def answer_speeds(asked: dict) -> None:
    speeds = {"encode": {"Q4_K search best": 1e7}, "read": 1e9, "write": 1e9, "multiply": 1e11}
    say("speeds", id=asked["id"], speeds=speeds)


def answer_figure(asked: dict) -> None:
    """Bins, or for outliers and pictures a heat map whose file lies in the folder named as the model.

    By the tensor's name or role: "slow" comes in two answers, the first one rough; "lost" has no file, "late"
    is answered behind the next request; "broken" is refused.
    """
    view = asked["view"]
    name = view.get("tensor") or view["role"]
    if "broken" in name:
        say("error", code="user", message=f"There is no {name}.", id=asked["id"])
        return
    if "late" in name:
        LATE.append(asked)
        return
    for done, last in ((1, False), (2, True)) if "slow" in name else ((2, True),):
        heat = view["kind"] in ("outliers", "picture")
        figure, path = heat_map(asked, done) if heat else (bins(name, done), "")
        say("figure", id=asked["id"], figure=figure, path=path, done=done, total=2, last=last)


def bins(name: str, done: int) -> dict:
    series = {"name": "original", "x": [0.0, 0.5], "y": [3.0 * done, 4.0], "width": 0.5}
    marks = [{"kind": kind, "name": kind, "x": 0.25} for kind in ("percentile", "clip", "level")]
    axes = {"x": {"name": "weight"}, "y": {"name": "count"}}
    return {"kind": "bins", "title": name, **axes, "series": [series], "marks": marks}


def heat_map(asked: dict, done: int) -> tuple[dict, str]:
    """Three rows of four columns, one of them ten times as large; as many rows are NaN as are not done."""
    view = asked["view"]
    name = view.get("tensor") or view["role"]
    rows = [[1.0, 1.0, 10.0, 1.0], [1.0, 1.0, 8.0, 1.0], [1.0, 2.0, 1.0, 1.0]]
    values = [value if place <= done else float("nan") for place, row in enumerate(rows) for value in row]
    path = Path(asked["model"]) / f"{asked['id']}-{done}.npy"
    if "lost" not in name and path.parent.is_dir():
        path.write_bytes(npy(values, (3, 4)))
    axes = {"x": {"name": "channel"}, "y": {"name": "block"}, "z": {"name": "abs-max"}}
    first = {"first_row": view.get("first_row", 0), "first_column": view.get("first_column", 0)}
    figure = {"kind": "heat map", "title": name, **axes, "height": 3, "width": 4, **first}
    return figure, str(path)


def answer_statistics(asked: dict) -> None:
    told = {"tensor": asked["tensor"], "role": "down", "block": 0, "shape": [64, 256], "dtype": "BF16"}
    told |= {"count": 16384, "min": -0.41, "max": 0.39, "mean": 0.0001, "std": 0.03, "absmax": 0.41}
    told |= {"kurtosis": 4.5, "zeros": 0.125, "percentiles": [float(n) for n in range(9)], "large": 0}
    told |= {"beyond_sigmas": 3, "outlier_channels": [7, 3], "outlier_ratio": 5.5}
    if asked["recipe"]:
        error = {"format": asked["recipe"]["default"]["format"], "method": "search", "squared": 0.018}
        error |= {"mean_squared": 1e-5, "snr": 17.4, "cosine": 0.99, "saturation": 0.01, "levels_used": 15}
        told |= {"error": error | {"levels": 16}}
    say("statistics", id=asked["id"], statistics=told)


def answer_check_calibrate(asked: dict) -> None:
    """By the output's name: "refused" does not pass."""
    passed = "refused" not in asked["calibrate"]["output"]
    told = {"name": "texts", "passed": passed, "message": f"{asked['calibrate']['windows']} windows"}
    say("checks", id=asked["id"], checks=[told])


def answer_importance(asked: dict) -> None:
    """Three blocks' tensors, those of more files with more tokens. By name: "broken", "other" model's.

    "deadly" ends the engine.
    """
    names = " ".join(asked["files"])
    if "deadly" in names:
        os.kill(os.getpid(), signal.SIGKILL)
    if "broken" in names or ("other" in names and asked["model"]):
        text = "is no importance matrix." if "broken" in names else "it was made for another model."
        say("error", code="user", message=f"{names}: {text}", id=asked["id"])
        return
    tensors = [statistics(block, len(asked["files"])) for block in range(3)]
    unseen = (
        [{"tensor": tensors[1]["tensor"], "matrices": 8, "experts": [3, 5]}] if "experts" in names else []
    )
    summary = {"files": asked["files"], "datasets": ["text.txt"], "windows": 7, "window": 512, "layers": []}
    summary["entries"] = 3
    if "zeros" in names:
        tensors[2] |= {"matrices": 1}
        unseen = [{"tensor": tensors[2]["tensor"], "matrices": 1, "experts": [0]}]
    warnings = ["the importance matrix says nothing of 1 tensor (x): quantized without it"] * bool(unseen)
    summary |= {"tensors": tensors, "unseen": unseen, "warnings": warnings}
    say("importance", id=asked["id"], summary=summary)


def statistics(block: int, files: int) -> dict:
    told = {"tensor": exported(block)["name"], "block": block, "matrices": 8, "tokens": 512 * files}
    told |= {
        "sum": [30.0, 1234.5, 2.0][block],
        "minimum": 0.0,
        "maximum": 3.5,
        "mean": 0.5,
        "deviation": 0.25,
    }
    told |= {"active": 0.5, "columns": 256, "entropy": 4.0, "entropy_share": 0.5, "z_density": 0.125}
    return told | {"cosine": [None, 0.75, -0.5][block]}


def answer_columns(asked: dict) -> None:
    columns = {"tensor": asked["tensor"], "columns": 6, "width": 2, "values": [4.0, 2.0, 1.0]}
    say("columns", id=asked["id"], columns=columns)


def answer_save(asked: dict) -> None:
    """To /nowhere there is no way, nor over what is read; .dat holds less."""
    output = asked["output"]
    if output.startswith("/nowhere"):
        say("error", code="user", message="There is no folder.", id=asked["id"])
    elif output in (*asked["files"], asked["model"]):
        say("error", code="user", message=f"{output}: is the input itself.", id=asked["id"])
    else:
        lost = [f"{output}: the older format does not keep all"] * output.endswith(".dat")
        say("importance_saved", id=asked["id"], path=output, bytes=10, warnings=lost)


def npy(values: list[float], shape: tuple[int, int]) -> bytes:
    """A float32 array in NumPy's file format."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117)
    data = struct.pack(f"<{len(values)}f", *values)
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + header.encode() + b"\n" + data


LATE: list[dict] = []
REMOVED: set[str] = set()

ANSWERS = {
    "open": lambda asked: answer_open(asked["id"], asked["model"]),
    "check": answer_check,
    "jobs": answer_jobs,
    "remove": answer_jobs,
    "speeds": answer_speeds,
    "figure": answer_figure,
    "statistics": answer_statistics,
    "check_calibrate": answer_check_calibrate,
    "importance": answer_importance,
    "importance_columns": answer_columns,
    "save_importance": answer_save,
}

WAYS = {
    way.__name__: way
    for way in (
        idle,
        echo,
        stubborn,
        mute,
        old,
        new,
        broken,
        closes_stdout,
        closes_stdin,
        segfault,
        chatter,
        flood,
        endless,
        garbage,
        job,
        inspect,
    )
}

if __name__ == "__main__":
    WAYS[sys.argv[1]](*sys.argv[2:])
