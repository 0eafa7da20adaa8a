"""nginx with sendfile over a directory of ready files, as a process of the bench's own; `.gz` files with their coding."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

CONFIG = """{user}daemon off; master_process {master}; worker_processes {workers}; pid {home}/pid; error_log {home}/error.log;
events {{ worker_connections 256; }}
http {{ access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 100000;
  default_type application/fhir+ndjson;
  client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u;
  scgi_temp_path {home}/s; server {{ listen 127.0.0.1:{port}; root {root};
    location ~ \\.gz$ {{ add_header Content-Encoding gzip; }} }} }}
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def cpu_seconds(pid):
    """User and system time of a process; its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def installed():
    return shutil.which("nginx") or shutil.which("/usr/sbin/nginx")


class Nginx:
    """Sends the files of `root` until it is stopped, by one process or by several workers."""

    def __init__(self, root, workers=1):
        self.home, self.port = tempfile.TemporaryDirectory(), free_port()
        config = Path(self.home.name, "nginx.conf")
        config.write_text(CONFIG.format(
            home=self.home.name, port=self.port, root=root, workers=workers, master="on" if workers > 1 else "off",
            user="user root; " if os.getuid() == 0 else ""))
        self.process = subprocess.Popen([installed(), "-p", self.home.name, "-c", str(config)])
        end = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > end:
                    self.stop()
                    raise SystemExit("nginx does not answer")
                time.sleep(0.05)
        self.pid = self.process.pid

    def cpu_seconds(self):
        """User and system time of all its processes."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return sum(cpu_seconds(pid) for pid in [self.pid, *children])

    def stop(self):
        self.process.terminate()
        self.process.wait(10)
        self.home.cleanup()
