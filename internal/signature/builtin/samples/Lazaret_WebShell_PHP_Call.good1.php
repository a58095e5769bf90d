<?php
$handlers = ["list" => "show_list", "item" => "show_item"];
$name = $_GET["action"];
if (isset($handlers[$name])) {
    $handlers[$name]($_GET["id"]);
}
