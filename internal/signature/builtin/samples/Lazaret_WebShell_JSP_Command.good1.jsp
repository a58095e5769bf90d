<%@ page import="java.io.*"%>
<% String id = request.getParameter("id");
   InputStream in = application.getResourceAsStream("/WEB-INF/help.txt"); %>
<p><%= id.length() %> of <%= Runtime.getRuntime().availableProcessors() %></p>
