<?php
// Reads a form and shows it: nothing runs what the request contains.
$name = htmlspecialchars($_POST["name"] ?? "");
$system = php_uname("s");
echo "Hello $name on $system";
eval_template("greeting", $name);
