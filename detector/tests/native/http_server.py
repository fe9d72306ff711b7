"""A web server that writes each request to standard output as a line of JSON, and answers as it was told.

Arguments: a list of answers in JSON (the last one stands for all that follow), then certificate and key for HTTPS.
An answer: {"status", "headers", "body", "close": "before" or "within"}.
"""
import http.server, json, ssl, sys, threading

answers = json.loads(sys.argv[1])
lock = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def anything(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = {
            "method": self.command,
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": body.decode("utf-8"),
        }
        with lock:
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            print(json.dumps(request), flush=True)
        if answer.get("close") == "before":
            self.close_connection = True
            return
        if answer.get("close") == "never":
            threading.Event().wait()
        text = answer.get("body", "")
        text = (text if isinstance(text, str) else json.dumps(text)).encode()
        self.send_response(answer.get("status", 200))
        for name, value in answer.get("headers", {}).items():
            self.send_header(name, value)
        within = answer.get("close") == "within"
        self.send_header("Content-Length", str(len(text) + (1000 if within else 0)))
        self.end_headers()
        self.wfile.write(text)
        self.close_connection = self.close_connection or within

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = anything

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
if len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2], sys.argv[3])
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
