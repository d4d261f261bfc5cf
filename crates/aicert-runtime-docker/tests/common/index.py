"""A package index over HTTPS with a password, for tests: index.py FOLDER ADDRESS CERTIFICATE KEY USER:PASSWORD"""

import base64
import http.server
import pathlib
import ssl
import sys
import time

folder, address, certificate, key, credentials = sys.argv[1:]
expected = "Basic " + base64.b64encode(credentials.encode()).decode()


class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *arguments):
        super().__init__(*arguments, directory=folder)

    def do_GET(self):
        if self.headers.get("Authorization") != expected:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="test"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if not self.path.startswith("/simple/"):
            return super().do_GET()
        # Slowly, so that a test can look at the container meanwhile.
        time.sleep(0.7)
        name = self.path.split("/")[2].replace("-", "_")
        files = [f.name for f in pathlib.Path(folder).iterdir() if f.name.lower().replace(".", "_").startswith(name)]
        if not files:
            return self.send_error(404)
        page = "".join(f'<a href="/{f}">{f}</a>' for f in files).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *arguments):
        pass


server = http.server.ThreadingHTTPServer((address, 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
