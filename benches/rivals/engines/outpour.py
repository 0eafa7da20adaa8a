"""outpour's command lines. Each step is one fresh process; a row that takes two is the sum of both."""

TITLE = "outpour"


class Outpour:
    def __init__(self, binary):
        self.binary = binary

    def index(self, store, index_dir, threads, validate="full"):
        return [self.binary, "index", "--store", store, "--index-dir", index_dir, "--threads", str(threads),
                "--validate", validate, "--progress", "never"]

    def export(self, store, index_dir, out, job, threads, compress="none", sync=False):
        return ([self.binary, "export", "--store", store, "--index-dir", index_dir, "--out", out, "--group", job.group,
                 "--threads", str(threads), "--compress", compress, "--progress", "never"]
                + (["--since", job.since] if job.since else []) + ([] if sync else ["--no-sync"]))

    def everything(self, store, index_dir, out):
        return [self.binary, "export", "--store", store, "--index-dir", index_dir, "--out", out, "--system",
                "--no-sync", "--progress", "never", "--max-file-bytes", "1000GiB"]

    def pack(self, store, to, threads, coding="zstd"):
        return [self.binary, "pack", "--store", store, "--to", to, "--threads", str(threads), "--coding", coding]

    def synth(self, out, patients):
        return [self.binary, "synth", "--out", out, "--patients", str(patients), "--seed", "1",
                "--updates", "0%", "--deletions", "0%"]
