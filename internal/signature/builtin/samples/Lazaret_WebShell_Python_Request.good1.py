from flask import Flask, request
import subprocess
app = Flask(__name__)

@app.route("/version")
def version():
    name = request.args.get("name", "world")
    out = subprocess.run(["uname", "-r"], capture_output=True, check=True).stdout
    return f"{name}: {out.decode()}"
